"""The grids of images that the sampling code has put into the report folder."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from lora_lab.study.pictures import Embedded, embed_file
from lora_lab.study.verdict import Study

KINDS = ("simple", "complex", "random")
CARD_SIDE = 800
"""Pixels that the thumbnail of a grid is wide at most."""
CARD_BYTES = 200_000
_NAME = re.compile(rf"grid_(.+)_({'|'.join(KINDS)})\.png", re.DOTALL)


@dataclass(frozen=True)
class GridPicture:
    """One grid."""

    kind: str
    """simple, complex or random."""
    title: str
    prompt: str
    """The prompt of all its images; empty where they differ or where it isn't known."""
    file: str
    alt: str
    picture: Embedded

    @property
    def href(self) -> str:
        """Address of the file beside the page."""
        return quote(self.file)


@dataclass(frozen=True)
class GridGroup:
    """The grids drawn with one checkpoint."""

    checkpoint: str
    grids: tuple[GridPicture, ...]


def load_grids(study: Study, folder: Path, budget: int) -> tuple[list[GridGroup], list[str]]:
    """Embeds the grids of a report folder.

    Args:
        study: the judged sweep.
        folder: the report folder.
        budget: bytes of the page that all grids together may take.

    Returns:
        The grids by checkpoint, and what is missing or can't be read, one sentence each.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.glob("grid_*.png")):
        if match := _NAME.fullmatch(path.name):
            found.setdefault(match[1], {})[match[2]] = path
    if not found:
        return [], [
            "There are no grids yet: “python sample.py run=<sweep folder>” draws them; then build "
            "this report again."
        ]
    share = budget // sum(len(kinds) for kinds in found.values())
    groups, notes = [], []
    for checkpoint, paths in found.items():
        grids = []
        for kind in KINDS:
            if kind not in paths:
                notes.append(f"The grid of the {kind} prompt on {checkpoint} is missing.")
                continue
            try:
                picture = embed_file(paths[kind], min(share, CARD_BYTES), CARD_SIDE)
            except ValueError as error:
                notes.append(f"{paths[kind].name} is left out: {error}.")
                continue
            grids.append(_grid(study, checkpoint, kind, paths[kind].name, picture))
        groups.append(GridGroup(checkpoint, tuple(grids)))
    return groups, notes


def _grid(study: Study, checkpoint: str, kind: str, file: str, picture: Embedded) -> GridPicture:
    columns = "a column a random prompt, final LoRAs only"
    title = "Random prompts, random seeds, the final LoRA of each value"
    if kind != "random":
        columns = "a column a saved LoRA, from first to last"
        title = f"{kind.capitalize()} prompt, each saved LoRA of each value"
    alt = (
        f"Grid of images drawn on {checkpoint}, {kind} prompt: a row a value of "
        f"{study.sweep.parameter}, {columns}; the base's rows in a red frame."
    )
    return GridPicture(kind, title, _prompt(study, kind), file, alt, picture)


def _prompt(study: Study, kind: str) -> str:
    """The prompt in the base's config with its subject; the random ones stand in the grid."""
    config = study.base.run.config if study.base else {}
    if kind == "random" or f"sampling.prompts.{kind}" not in config:
        return ""
    subject = config.get("sampling.subject", "null")
    prompt = config[f"sampling.prompts.{kind}"]
    return prompt if subject == "null" else prompt.replace("{subject}", subject)
