"""All grids of a run or sweep folder, or of one LoRA file: images first, then the pictures."""

import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_lab.checkpoint.embedded import locate
from lora_lab.config import SamplingConfig
from lora_lab.errors import LabError
from lora_lab.files import read_json, write_json
from lora_lab.images.png_info import read_recipe
from lora_lab.lora_file.merge import load_model
from lora_lab.run_folder.locks import GRIDS_LOCK, wait_for
from lora_lab.run_folder.record import COMPLETE, read_facts
from lora_lab.run_folder.saved_loras import Rows, file_rows, find_rows, first_seeds
from lora_lab.sampling.generate import check_settings, draw_settings
from lora_lab.sampling.grids.axes import Identity, Point, prompt_choices
from lora_lab.sampling.grids.compose import Table, compose, draw_on
from lora_lab.sampling.grids.layout import pages
from lora_lab.sampling.grids.picture import write_grid
from lora_lab.sampling.grids.tasks import MissingImage
from lora_lab.sampling.pipeline import ImageResult, ImageTask, LoRAPipeline
from lora_lab.sampling.prompt_subject import distinct, safe_name, with_subject

log = logging.getLogger(__name__)
PROBLEMS_SHOWN = 5
TOGETHER = "checkpoints"
"""In the file name of a grid that shows several checkpoints."""


@dataclass(frozen=True)
class GridImage:
    """One image that was drawn or found."""

    path: Path
    point: Point
    """What was asked for: run (with its value and whether it is the base), checkpoint, seed …"""

    @property
    def prompt(self) -> str:
        """Stable name of what was asked for, the same in every run: simple, random-3."""
        choice = self.point.prompt
        return choice.kind + (f"-{choice.index + 1}" if choice.kind in ("random", "text") else "")


@dataclass(frozen=True)
class DrawnGrids:
    """What came of drawing."""

    grids: list[Path]
    images: list[GridImage]
    problems: list[str]
    """One line for each checkpoint, prompt or LoRA that could not be drawn with."""


class GridDrawer:
    """Draws the images of some tables and the grids that show them.

    Args:
        rows: Runs, or one LoRA file.
        config: Prompts, seeds, sampler, checkpoints and grids.
        scores: Image -> what stands under it.

    Raises:
        LabError: There is no checkpoint, one is missing, or the subject is unknown.
    """

    def __init__(
        self, rows: Rows, config: SamplingConfig, scores: Mapping[Path, str] | None = None
    ) -> None:
        if not config.checkpoints:
            raise LabError(
                "sampling.checkpoints is empty: name the checkpoint that draws the images"
            )
        for checkpoint in config.checkpoints:
            locate(checkpoint)
        texts = [c.text for grid in config.grids for c in prompt_choices(grid, config)]
        texts += config.prompts.complex_for.values()
        saves = [save.path for run in rows.runs for save in run.saves]
        self.rows = rows
        self.config = with_subject(config, texts, saves)
        self.scores = {path.resolve(): text for path, text in (scores or {}).items()}
        self.names = distinct([_name(locate(c)) for c in config.checkpoints])
        self.labels: dict[str, str] = {}
        self.images: dict[Identity, tuple[Point, ImageResult]] = {}
        self.keys: dict[Path, str] = {}
        self.problems: list[str] = []

    def draw(self) -> None:
        """Draw every image that is missing, checkpoint by checkpoint."""
        for name, checkpoint in zip(self.names, self.config.checkpoints, strict=True):
            asked = self._asked(name)
            if not asked:
                continue
            try:
                base = load_model(checkpoint, self.config)
                check_settings(base, draw_settings(self.config))
                pipeline = LoRAPipeline(base, self.config)
            except LabError as error:
                self._fail(asked, str(error))
                continue
            self.labels[name] = f"{base.name}, {base.fingerprint[:10]}"
            began = time.perf_counter()
            tasks = [(point, task) for point, task in asked if isinstance(task, ImageTask)]
            outcomes = pipeline.draw([task for _, task in tasks])
            found = [(point, outcome) for (point, _), outcome in zip(tasks, outcomes, strict=True)]
            self._missing(
                [(point, task) for point, task in asked if isinstance(task, MissingImage)]
            )
            self._note(name, found, time.perf_counter() - began)

    def _asked(self, name: str) -> list[tuple[Point, ImageTask | MissingImage]]:
        """What one checkpoint is asked for, over all grids; each image once."""
        found: dict[Identity, tuple[Point, ImageTask | MissingImage]] = {}
        for table in self.tables(self.rows):
            if name in table.names:
                found |= {point.identity: (point, task) for point, task in draw_on(table, name)}
        return list(found.values())

    def tables(self, rows: Rows) -> list[Table]:
        """The grids of some rows: one for each checkpoint unless an axis is checkpoint."""
        result = []
        for grid in self.config.grids:
            together = "checkpoint" in (grid.rows, grid.columns, grid.pages)
            groups = [self.names] if together else [[name] for name in self.names]
            result += [Table(rows, grid, self.config, self.labels, names) for names in groups]
        return result

    def _missing(self, missing: list[tuple[Point, MissingImage]]) -> None:
        """Keep why there is no image."""
        for point, task in missing:
            self.images[point.identity] = point, ImageResult(None, task.problem)
            if task.failed:
                self.problems.append(task.problem)

    def _note(self, name: str, found: list[tuple[Point, ImageResult]], seconds: float) -> None:
        """Keep what came of a checkpoint's images, and the time in each run's facts."""
        drawn: dict[Path, int] = {}
        for point, outcome in found:
            self.images[point.identity] = point, outcome
            if outcome.path is None:
                self.problems.append(f"{point.run.label} on {name}: {outcome.problem}")
            elif (recipe := read_recipe(outcome.path)) is not None:
                self.keys[outcome.path] = recipe.key
            if outcome.drawn:
                drawn[point.run.folder] = drawn.get(point.run.folder, 0) + 1
        count = sum(drawn.values())
        if count:
            log.info("%s: %d images in %.0f s", name, count, seconds)
        for folder, images in drawn.items():
            _add_seconds(folder, seconds * images / count)

    def _fail(self, asked: list[tuple[Point, ImageTask | MissingImage]], problem: str) -> None:
        self.problems.append(problem)
        outcome = ImageResult(None, " ".join(problem.split()))
        self.images |= {point.identity: (point, outcome) for point, _ in asked}

    def write(self, rows: Rows, folder: Path) -> list[Path]:
        """Draw the grids of some of the rows into a folder, where they are not there already."""
        paths = []
        for table in self.tables(rows):
            if not any(name in self.labels for name in table.names):
                continue
            together = "checkpoint" in table.sides()
            stem = f"grid_{TOGETHER if together else table.names[0]}_{table.config.name}"
            outcomes = {identity: outcome for identity, (_, outcome) in self.images.items()}
            grids = compose(table, outcomes, self.keys, self.scores)
            parts = [part for grid in grids for part in pages(grid, self.config.picture)]
            for number, part in enumerate(parts, 1):
                path = folder / (f"{stem}-p{number}.png" if number > 1 else f"{stem}.png")
                write_grid(path, part, self.config.picture)
                paths.append(path)
            _remove_pages(folder, stem, len(parts))
        return paths

    def gallery(self, grids: list[Path]) -> DrawnGrids:
        """What came of it."""
        images = [
            GridImage(outcome.path, point)
            for point, outcome in self.images.values()
            if outcome.path is not None
        ]
        return DrawnGrids(grids, images, list(dict.fromkeys(self.problems)))


def draw_grids(folder: Path, config: SamplingConfig, scores: Path | None = None) -> DrawnGrids:
    """Draw the images of every saved LoRA of a run or sweep folder, and the grids that show them.

    Images that are there with the same recipe stay, and so do grids. What can't be drawn is said in
    its cell.

    Args:
        folder: Of a sweep, whose grids go into its report/, or of a run, into its grids/.
        config: Prompts, seeds, sampler, checkpoints and grids.
        scores: A file that says what stands under the images.

    Raises:
        LabError: Nothing can be drawn at all: the folder holds no runs or can't be written, no
            checkpoint is named, one is missing, or the subject is unknown.
    """
    texts = None if scores is None else read_scores(scores, folder)
    rows = first_seeds(find_rows(folder), config.train_seeds)
    with wait_for(folder / GRIDS_LOCK, f"the grids of {folder}"):
        drawer = GridDrawer(rows, config, texts)
        drawer.draw()
        grids: list[Path] = []
        for run in rows.runs:
            alone = Rows("", (replace(run, note="", is_base=False),))
            grids += drawer.write(alone, run.folder / "grids")
        if rows.parameter:
            grids = drawer.write(rows, folder / "report")
        return drawer.gallery(grids)


def draw_file_grids(lora: Path, output: Path, config: SamplingConfig) -> DrawnGrids:
    """Draw grids of a single LoRA file.

    Args:
        lora: The file, ours or not.
        output: Folder for images and grids.
        config: Prompts, seeds, sampler, checkpoints and grids.

    Raises:
        LabError: As in `draw_grids`.
    """
    rows = file_rows(lora, output)
    drawer = GridDrawer(rows, config)
    drawer.draw()
    return drawer.gallery(drawer.write(rows, rows.runs[0].folder))


def refuse_missing(problems: Sequence[str]) -> None:
    """End with what could not be drawn.

    Raises:
        LabError: There is a problem.
    """
    if not problems:
        return
    more = f"; and {len(problems) - PROBLEMS_SHOWN} more" if len(problems) > PROBLEMS_SHOWN else ""
    raise LabError("not all was drawn: " + "; ".join(problems[:PROBLEMS_SHOWN]) + more)


def _name(path: Path) -> str:
    """What a checkpoint is called in file names."""
    return safe_name(path.name if path.is_dir() else path.stem)


def _remove_pages(folder: Path, stem: str, count: int) -> None:
    """Remove pages beyond the last, of an earlier and longer grid."""
    for path in folder.glob(f"{stem}-p*.*"):
        match = re.fullmatch(r"-p(\d+)\.(png|webp)", path.name[len(stem) :])
        if match and int(match[1]) > max(count, 1):
            path.unlink()


def _add_seconds(folder: Path, seconds: float) -> None:
    """Add to the sampling time in run.json."""
    facts = read_facts(folder)
    if facts is None or facts.get("status") != COMPLETE or not isinstance(facts["seconds"], dict):
        return
    before = facts["seconds"].get("sampling") or 0.0
    facts["seconds"]["sampling"] = round(before + seconds, 4)
    write_json(folder / "run.json", facts)


def read_scores(path: Path, folder: Path) -> dict[Path, str]:
    """Numbers or texts that stand under images, from a JSON file.

    Args:
        path: {"image, from the folder": number or text}.
        folder: The run or sweep folder.

    Raises:
        LabError: It can't be read or holds something else.
    """
    try:
        values = read_json(path)
        items = [(folder / name, value) for name, value in values.items()]
    except (OSError, ValueError, AttributeError) as error:
        raise LabError(f"{path} can't be read as scores ({error}): {{image: number}}") from None
    for name, value in items:
        if not isinstance(value, int | float | str):
            raise LabError(f"{path}: {name.name} must have a number or a text, got {value!r}")
    return {name: v if isinstance(v, str) else f"{v:.3g}" for name, v in items}
