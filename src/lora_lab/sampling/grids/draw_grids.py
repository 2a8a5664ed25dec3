"""All grids of a run or sweep folder, or of one LoRA file: images first, then the pictures.

The images of a run depend on nothing of the other runs, so a process can draw them run by run, or
processes beside each other, and one that has no base model puts them into grids.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lora_lab.checkpoint.embedded import locate
from lora_lab.config import SamplingConfig
from lora_lab.errors import LabError
from lora_lab.files import read_json
from lora_lab.images.png_info import read_recipe
from lora_lab.lora_file.merge import load_model
from lora_lab.run_folder.image_seconds import add_seconds
from lora_lab.run_folder.locks import GRIDS_LOCK, wait_for
from lora_lab.run_folder.record import run_name
from lora_lab.run_folder.saved_loras import Rows, file_rows, find_rows, first_seeds
from lora_lab.sampling.generate import check_settings, draw_settings
from lora_lab.sampling.grids.axes import Identity, Point, prompt_choices
from lora_lab.sampling.grids.compose import Table, compose, draw_on
from lora_lab.sampling.grids.layout import pages
from lora_lab.sampling.grids.picture import write_grid
from lora_lab.sampling.pipeline import ImageResult, ImageTask, LoRAPipeline
from lora_lab.sampling.prompt_subject import distinct, safe_name, with_subject

log = logging.getLogger(__name__)
PROBLEMS_SHOWN = 5
TOGETHER = "checkpoints"
"""In the file name of a grid that shows several checkpoints."""


@dataclass(frozen=True)
class DrawnGrids:
    """What came of drawing."""

    grids: list[Path]
    problems: list[str]
    """One line for each checkpoint, prompt or LoRA that could not be drawn with."""


@dataclass
class DrawnImages:
    """What came of the images of some runs: all that grids of them need to know."""

    labels: dict[str, str] = field(default_factory=dict)
    """Checkpoint -> its name and hash for the header."""
    results: dict[Identity, tuple[Point, ImageResult]] = field(default_factory=dict)
    keys: dict[Path, str] = field(default_factory=dict)
    """Image -> what it shares with those of the same recipe."""
    problems: list[str] = field(default_factory=list)

    def add(self, other: "DrawnImages") -> None:
        """Take in the images of other runs."""
        self.labels |= other.labels
        self.results |= other.results
        self.keys |= other.keys
        self.problems += other.problems


LoadPipeline = Callable[[str, SamplingConfig], LoRAPipeline]
"""From a checkpoint and how to draw to what draws."""


def load_pipeline(checkpoint: str, config: SamplingConfig) -> LoRAPipeline:
    """Load a checkpoint to draw with.

    Raises:
        LabError: It can't be read, or the settings don't suit it.
    """
    base = load_model(checkpoint, config)
    check_settings(base, draw_settings(config))
    return LoRAPipeline(base, config)


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
        self.drawn = DrawnImages()

    def runs(self) -> list[Path]:
        """Folders of the runs that there are images to draw of."""
        asked = [one for name in self.names for one in self._asked(name)]
        return list(dict.fromkeys(p.run.folder for p, task in asked if isinstance(task, ImageTask)))

    def draw(self, run: Path | None = None, load: LoadPipeline = load_pipeline) -> None:
        """Draw every image that is missing, checkpoint by checkpoint.

        Args:
            run: The folder of the run whose images are wanted; None: those of all.
            load: Loads a checkpoint, or has it at hand.
        """
        self.note_missing()
        for name, checkpoint in zip(self.names, self.config.checkpoints, strict=True):
            asked: dict[Path, list[tuple[Point, ImageTask]]] = {}
            for point, task in self._asked(name):
                if isinstance(task, ImageTask) and run in (None, point.run.folder):
                    asked.setdefault(point.run.folder, []).append((point, task))
            if not asked:
                continue
            try:
                pipeline = load(checkpoint, self.config)
            except LabError as error:
                self._fail([point for tasks in asked.values() for point, _ in tasks], str(error))
                continue
            self.drawn.labels[name] = f"{pipeline.base.name}, {pipeline.base.fingerprint[:10]}"
            for folder, tasks in asked.items():
                with wait_for(folder / GRIDS_LOCK, f"the images of {folder}"):
                    began = time.perf_counter()
                    outcomes = pipeline.draw([task for _, task in tasks])
                    seconds = time.perf_counter() - began
                found = [(p, outcome) for (p, _), outcome in zip(tasks, outcomes, strict=True)]
                self._note(name, folder, found, seconds)

    def _asked(self, name: str) -> list[tuple[Point, ImageTask | ImageResult]]:
        """What one checkpoint is asked for, over all grids; each image once."""
        found: dict[Identity, tuple[Point, ImageTask | ImageResult]] = {}
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
            labels = self.drawn.labels
            result += [Table(rows, grid, self.config, labels, names) for names in groups]
        return result

    def note_missing(self) -> None:
        """Keep why there is no image where none could be drawn."""
        for point, task in (one for name in self.names for one in self._asked(name)):
            if isinstance(task, ImageResult) and point.identity not in self.drawn.results:
                self.drawn.results[point.identity] = point, task
                if not task.expected:
                    self.drawn.problems.append(task.problem)

    def _note(
        self, name: str, folder: Path, found: list[tuple[Point, ImageResult]], seconds: float
    ) -> None:
        """Keep what came of a run's images on a checkpoint, and the time in the run's facts."""
        for point, outcome in found:
            self.drawn.results[point.identity] = point, outcome
            if outcome.path is None:
                self.drawn.problems.append(f"{point.run.label} on {name}: {outcome.problem}")
            elif (recipe := read_recipe(outcome.path)) is not None:
                self.drawn.keys[outcome.path] = recipe.key
        count = sum(outcome.drawn for _, outcome in found)
        if count:
            log.info("%s on %s: %d images in %.0f s", run_name(folder), name, count, seconds)
            add_seconds(folder, "sampling", seconds)

    def _fail(self, asked: list[Point], problem: str) -> None:
        self.drawn.problems.append(problem)
        outcome = ImageResult(None, " ".join(problem.split()))
        self.drawn.results |= {point.identity: (point, outcome) for point in asked}

    def write(self, rows: Rows, folder: Path) -> list[Path]:
        """Draw the grids of some of the rows into a folder, where they are not there already."""
        paths = []
        for table in self.tables(rows):
            if not any(name in self.drawn.labels for name in table.names):
                continue
            together = "checkpoint" in table.sides()
            stem = f"grid_{TOGETHER if together else table.names[0]}_{table.config.name}"
            outcomes = {name: outcome for name, (_, outcome) in self.drawn.results.items()}
            grids = compose(table, outcomes, self.drawn.keys, self.scores)
            parts = [part for grid in grids for part in pages(grid, self.config.picture)]
            for number, part in enumerate(parts, 1):
                path = folder / (f"{stem}-p{number}.png" if number > 1 else f"{stem}.png")
                write_grid(path, part, self.config.picture)
                paths.append(path)
            _remove_pages(folder, stem, len(parts))
        return paths

    @property
    def problems(self) -> list[str]:
        """One line for each checkpoint, prompt or LoRA that could not be drawn with."""
        return list(dict.fromkeys(self.drawn.problems))

    def write_all(self, folder: Path) -> DrawnGrids:
        """Put the images into the grids of each run and of the sweep.

        Args:
            folder: Of a sweep, whose grids go into its report/, or of a run, into its grids/.
        """
        self.note_missing()
        grids: list[Path] = []
        with wait_for(folder / GRIDS_LOCK, f"the grids of {folder}"):
            for run in self.rows.runs:
                alone = Rows("", (replace(run, note="", is_base=False),))
                grids += self.write(alone, run.folder / "grids")
            if self.rows.parameter:
                grids = self.write(self.rows, folder / "report")
        return DrawnGrids(grids, self.problems)


def plan_grids(
    folder: Path, config: SamplingConfig, scores: Mapping[Path, str] | None = None
) -> GridDrawer:
    """What draws the grids of a run or sweep folder: of the seeds that they show.

    Args:
        folder: Of a sweep or a run.
        config: Prompts, seeds, sampler, checkpoints and grids.
        scores: Image -> what stands under it.

    Raises:
        LabError: As in `GridDrawer`, or the folder holds no runs.
    """
    return GridDrawer(first_seeds(find_rows(folder), config.train_seeds), config, scores)


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
    drawer = plan_grids(folder, config, None if scores is None else read_scores(scores, folder))
    drawer.draw()
    return drawer.write_all(folder)


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
    return DrawnGrids(drawer.write(rows, rows.runs[0].folder), drawer.problems)


def refuse_missing(problems: Sequence[str]) -> None:
    """End with what could not be drawn.

    Raises:
        LabError: There is a problem.
    """
    if not problems:
        return
    more = f"; and {len(problems) - PROBLEMS_SHOWN} more" if len(problems) > PROBLEMS_SHOWN else ""
    raise LabError("not everything was drawn: " + "; ".join(problems[:PROBLEMS_SHOWN]) + more)


def _name(path: Path) -> str:
    """What a checkpoint is called in file names."""
    return safe_name(path.name if path.is_dir() else path.stem)


def _remove_pages(folder: Path, stem: str, count: int) -> None:
    """Remove pages beyond the last, of an earlier and longer grid."""
    for path in folder.glob(f"{stem}-p*.*"):
        match = re.fullmatch(r"-p(\d+)\.(png|webp)", path.name[len(stem) :])
        if match and int(match[1]) > max(count, 1):
            path.unlink()


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
