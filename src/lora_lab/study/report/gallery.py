"""All pictures of a report: the grids in its folder, and any image beside any other."""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from lora_lab.config.sampling import PROMPT_NAMES
from lora_lab.study.judge.verdict import Study
from lora_lab.study.read.real_pictures import real_pictures
from lora_lab.study.report.explorer import Explorer, load_explorer
from lora_lab.study.report.pictures import Embedded, embed_file

log = logging.getLogger(__name__)
GRID_SHARE = 5
"""The whole grids take one of so many parts of what is left for pictures."""
MAX_NAMED = 5
"""So many files that can't be read are named one by one."""
CARD_SIDE = 800
"""Pixels that the thumbnail of a grid is wide at most."""
CARD_BYTES = 200_000
MOST_REAL, REAL_SIDE, REAL_BYTES = 24, 256, 20_000
"""Real pictures that are shown, their width in pixels and the bytes of each."""
_NAME = re.compile(r"grid_(.+)_([^_]+)\.png", re.DOTALL)


@dataclass(frozen=True)
class GridPicture:
    """One grid."""

    kind: str
    """simple, complex, random, or another name; further pages end in -p2, -p3 …"""
    title: str
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


@dataclass(frozen=True)
class Gallery:
    """All pictures that were drawn with the LoRAs."""

    grids: list[GridGroup]
    notes: list[str]
    """What is missing or can't be read, one sentence each."""
    explorer: Explorer | None
    real: tuple[Embedded, ...] = ()
    """Pictures of the subject that were not trained on."""


def load_gallery(study: Study, folder: Path, budget: int) -> Gallery:
    """Make the thumbnails of a page.

    Args:
        study: The judged sweep.
        folder: The report folder.
        budget: Bytes that all of them may take.
    """
    real = real_gallery(study)
    budget -= sum(len(picture.address) for picture in real)
    grids, notes = _load_grids(study, folder, budget // GRID_SHARE)
    explorer = load_explorer(study, folder, budget - budget // GRID_SHARE)
    if explorer is not None and explorer.left_out:
        notes.append(
            f"{explorer.left_out} of {explorer.count} images have no thumbnail, so that this page "
            "stays small: their cells link to the files."
        )
    for name in explorer.unreadable[:MAX_NAMED] if explorer else ():
        notes.append(f"{name} can’t be read as a picture.")
    return Gallery(grids, notes, explorer, real)


def real_gallery(study: Study) -> tuple[Embedded, ...]:
    """Embed the held-out images that the base's settings name; those that can't be read are left.

    With more than MOST_REAL every n-th is shown.
    """
    paths = real_pictures(study.base.run.config) if study.base is not None else []
    shown = []
    for path in paths[:: -(-len(paths) // MOST_REAL) or 1]:
        try:
            shown.append(embed_file(path, REAL_BYTES, REAL_SIDE))
        except ValueError as error:
            log.warning("%s is not shown: %s", path, error)
    return tuple(shown)


def _load_grids(study: Study, folder: Path, budget: int) -> tuple[list[GridGroup], list[str]]:
    """Embed the grids of a report folder.

    Args:
        study: The judged sweep.
        folder: The report folder.
        budget: Bytes of the page that all grids together may take.

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
        wanted = PROMPT_NAMES if paths.keys() & set(PROMPT_NAMES) else ()
        for kind in (*wanted, *sorted(paths.keys() - set(PROMPT_NAMES))):
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
    name, _, part = kind.partition("-p")
    page = f", page {part}" if part.isdecimal() else ""
    if name == "random":
        title = f"Random prompts, random seeds, the final LoRA of each value{page}"
        cells = "one column per random prompt, final LoRAs only"
    elif name in PROMPT_NAMES:
        title = f"{name.capitalize()} prompt, each saved LoRA of each value{page}"
        cells = "one column per saved LoRA, from first to last"
    else:
        title, cells = kind, "as its header says"
    alt = (
        f"Grid of images drawn on {checkpoint}, {kind}: values of {study.sweep.parameter}, "
        f"{cells}; the base in a red frame."
    )
    return GridPicture(kind, title, file, alt, picture)
