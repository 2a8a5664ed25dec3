"""The images that were drawn with each run's LoRA files, as they lie in the run folders.

`<run>/images/<checkpoint>/<kind>/<8 digits of the step>[-<number>].png`; what was asked for stands
in the PNG itself.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from lora_lab.config.sampling import PROMPT_NAMES
from lora_lab.errors import LabError
from lora_lab.images.png_info import read_parameters, read_recipe
from lora_lab.run_folder.saved_loras import run_share
from lora_lab.study.judge.verdict import Judged, Study

FOLDER = "images"
_NAME = re.compile(r"(\d{8})(?:-(.+))?\.png", re.DOTALL)


@dataclass(frozen=True)
class RunImage:
    """One image of a run."""

    path: Path
    checkpoint: str
    """Name of the base checkpoint that drew it."""
    prompt: str
    """Stable name of what was asked for, the same in every run: simple, complex, random-3."""
    step: int
    share: float
    """Which share of the run its LoRA stands for, in (0, 1]."""
    text: str
    """The prompt as it was asked for; empty when the file doesn't tell."""
    seed: int | None

    @property
    def key(self) -> str:
        """The same in every run and at every step: what loggers show it under."""
        return f"{self.checkpoint}/{self.prompt}"

    def href(self, page: Path) -> str:
        """Address relative to the folder of the page, so that a moved sweep still shows it."""
        relative = os.path.relpath(self.path, page)
        return quote(relative.replace(os.sep, "/"))


def study_images(study: Study) -> dict[str, list[RunImage]]:
    """Name of a run -> its images, of every run that has any."""
    return {one.run.name: found for one in study.judged if (found := run_images(one))}


def run_images(one: Judged) -> list[RunImage]:
    """The images of a run, by checkpoint, prompt and step."""
    folder = one.run.folder / FOLDER
    total = one.measures.steps if one.run.complete else _planned_steps(one)
    save_every = _number(one.run.config.get("save_every", ""))
    found = []
    for path in folder.rglob("*.png"):
        match = _NAME.fullmatch(path.name)
        parts = path.relative_to(folder).parts[:-1]
        if match is None or len(parts) < 2:
            continue
        prompt = "-".join([*parts[1:], *([match[2]] if match[2] else [])])
        step = int(match[1])
        share = run_share(step, max(total or 0, step), save_every)
        found.append(RunImage(path, parts[0], prompt, step, share, *_asked(path)))
    return sorted(
        found, key=lambda image: (image.checkpoint, prompt_order(image.prompt), image.step)
    )


def _asked(path: Path) -> tuple[str, int | None]:
    """Prompt and seed of an image, from our own chunk or from the web UI's."""
    recipe = read_recipe(path)
    if recipe is not None:
        return recipe.prompt, recipe.seed
    try:
        fields = read_parameters(path)
    except LabError:
        return "", None
    seed = fields.get("Seed", "")
    return fields.get("Prompt", ""), int(seed) if seed.isdecimal() else None


def prompts_of(images: Iterable[RunImage]) -> list[str]:
    """The distinct prompts in reading order."""
    return sorted({image.prompt for image in images}, key=prompt_order)


def prompt_order(prompt: str) -> tuple[int, str, int]:
    """Simple before complex before random, numbers by size."""
    kind, _, number = prompt.rpartition("-") if prompt[-1:].isdigit() else (prompt, "", "0")
    known = PROMPT_NAMES.index(kind) if kind in PROMPT_NAMES else len(PROMPT_NAMES)
    return known, kind, int(number) if number.isdecimal() else 0


def _planned_steps(one: Judged) -> int | None:
    """Steps of a run that was not trained to its end; None when they can't be told."""
    table = one.run.metrics
    epochs = _number(one.run.config.get("epochs", ""))
    done = table.column("epoch")
    if epochs is None or not len(done) or not done[-1] > 1:
        return None
    whole = int((done < done[-1]).sum())
    return round(whole / (done[-1] - 1) * epochs)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
