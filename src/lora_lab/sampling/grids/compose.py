"""Puts images into grids: pages of rows and columns, and the header that states the recipe."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_lab.config import SamplingConfig
from lora_lab.config.sampling import AXES, GridConfig
from lora_lab.errors import LabError
from lora_lab.run_folder.saved_loras import Rows
from lora_lab.sampling.grids.axes import (
    AxisPlace,
    Identity,
    Point,
    PromptChoice,
    at,
    first_point,
    places,
    prompt_choices,
)
from lora_lab.sampling.grids.grid import Grid, GridCell, GridColumn, GridRow
from lora_lab.sampling.grids.tasks import choice_text, find_save, make_task
from lora_lab.sampling.pipeline import ImageResult, ImageTask

_TITLES = {"simple": "simple prompt", "complex": "complex prompt", "random": "random prompts"}


@dataclass(frozen=True)
class Table:
    """A grid's places, and the checkpoints that it is drawn on."""

    rows: Rows
    config: GridConfig
    sampling: SamplingConfig
    checkpoints: dict[str, str]
    """Name -> name and hash for the header, of those that could be read."""
    names: list[str]
    """All checkpoints that this grid shows; one unless an axis is checkpoint."""

    def axis(self, axis: str | None) -> list[AxisPlace]:
        """The places on one of its axes."""
        return places(axis, self.rows, self.config, self.sampling, self.names)

    def first(self) -> Point:
        """What its axes start from."""
        return first_point(self.rows, self.config, self.sampling, self.names[0])

    def points(self) -> list[Point]:
        """Every point, row by row, page by page."""
        sides = [self.axis(side) for side in self.sides()]
        first = self.first()
        return [at(first, p, r, c) for p in sides[0] for r in sides[1] for c in sides[2]]

    def sides(self) -> tuple[str | None, str, str]:
        """Pages, rows and columns."""
        return self.config.pages, self.config.rows, self.config.columns


def draw_on(table: Table, checkpoint: str) -> list[tuple[Point, ImageTask | ImageResult]]:
    """The images of a table that one checkpoint draws."""
    points = [point for point in table.points() if point.checkpoint == checkpoint]
    return [(point, make_task(point, table.sampling)) for point in points]


def compose(
    table: Table,
    images: Mapping[Identity, ImageResult],
    keys: Mapping[Path, str],
    scores: Mapping[Path, str],
) -> list[Grid]:
    """The grids of a table, one for each place on its third axis.

    Args:
        table: What the grids show.
        images: What came of each point.
        keys: Image -> its key.
        scores: Image -> what stands under it.
    """
    pages, rows, columns = (table.axis(side) for side in table.sides())
    grids = []
    for page in pages:
        first = at(table.first(), page)
        cells = [
            [_cell(images.get(at(first, r, c).identity), keys, scores) for c in columns]
            for r in rows
        ]
        body = tuple(
            GridRow(row.label, row.note, tuple(line), row.is_base)
            for row, line in zip(rows, cells, strict=True)
        )
        grids.append(
            Grid(
                title=_title(table, page, first),
                facts=_facts(table, first),
                corner=_corner(table),
                columns=tuple(GridColumn(c.label, c.note, c.is_base) for c in columns),
                rows=body,
                image_size=(table.sampling.width, table.sampling.height),
            )
        )
    return grids


def _cell(
    outcome: ImageResult | None, keys: Mapping[Path, str], scores: Mapping[Path, str]
) -> GridCell:
    if outcome is None:
        return GridCell(None, "not drawn")
    if outcome.path is None:
        return GridCell(None, outcome.problem)
    path = outcome.path
    return GridCell(path, key=keys.get(path, ""), score=scores.get(path.resolve(), ""))


def _title(table: Table, page: AxisPlace, first: Point) -> str:
    rows = table.rows
    subject = rows.title or rows.parameter or rows.runs[0].folder.resolve().name
    prompts = table.config.prompts
    what = _TITLES.get(prompts[0], "") if len(prompts) == 1 else ""
    on = "" if "checkpoint" in table.sides() else first.checkpoint
    name = AXES.get(table.config.pages or "", "")
    third = f"{name or table.rows.parameter} {page.label}".strip() if table.config.pages else ""
    base = "base" if page.is_base else ""
    return " · ".join(filter(None, [subject, what, on, third, page.note or base]))


def _corner(table: Table) -> str:
    axis = table.config.rows
    return AXES[axis] or table.rows.parameter


def _facts(table: Table, first: Point) -> tuple[tuple[str, str], ...]:
    """Prompt, negative prompt, settings and checkpoint, as lines of the header."""
    config, sides = table.sampling, table.sides()
    facts = [_prompt_fact(table, first), ("Negative", config.negative or "none")]
    drawn = first.settings
    settings = {
        "sampler": drawn.sampler,
        "steps": f"{drawn.steps} steps",
        "guidance": f"guidance {drawn.guidance:g}",
        "seed": _seed_text(table, first),
        "size": f"{drawn.width}×{drawn.height} px",
        "clip_skip": f"clip skip {drawn.clip_skip}",
        "lora_weight": f"LoRA weight {first.lora_weight:g}",
    }
    told = [text for name, text in settings.items() if text and name not in sides]
    facts.append(("Settings", ", ".join(told)))
    if "step" not in sides:
        saves = {save.path.name for point in table.points() if (save := find_save(point))}
        facts.append(("LoRA", saves.pop() if len(saves) == 1 else "the final one of each run"))
    if "checkpoint" not in sides:
        facts.append(("Checkpoint", table.checkpoints.get(first.checkpoint, first.checkpoint)))
    return tuple(facts)


def _seed_text(table: Table, first: Point) -> str:
    if "seed" in table.sides():
        return ""
    if "prompt" in table.sides():
        return (
            "one seed per prompt"
            if "random" in table.config.prompts
            else f"seed {first.prompt.seed}"
        )
    return f"seed {first.prompt.seed if first.seed is None else first.seed}"


def _prompt_fact(table: Table, first: Point) -> tuple[str, str]:
    if "prompt" in table.sides() and table.config.pages != "prompt":
        choices = prompt_choices(table.config, table.sampling)
        lines = []
        for choice in choices:
            name = f"{choice.index + 1}" if choice.kind == "random" else choice.kind
            lines.append(f"{name}  {_text(table, choice, first.checkpoint)}")
        return "Prompts", "\n".join(lines)
    return "Prompt", _text(table, first.prompt, first.checkpoint)


def _text(table: Table, choice: PromptChoice, checkpoint: str) -> str:
    try:
        return choice_text(choice, checkpoint, table.sampling)
    except LabError:
        return choice.text
