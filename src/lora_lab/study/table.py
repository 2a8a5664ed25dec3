"""The table of values: one row a run, as the page shows it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from lora_lab.study.metric_results import Kind
from lora_lab.study.spelling import duration, percent, plain, signed, size, step_time
from lora_lab.study.verdict import Judged, Study

STRIP = 95.0
"""Half the width of a strip in its own units."""
FLOOR_SHARE = 0.3
"""The floor takes at least this share of half a strip, so that it is to be seen."""
VERDICT_ORDER = (Kind.BASE, Kind.BETTER, Kind.MIXED, Kind.NONE_SHOWN, Kind.WORSE, Kind.NOT_RANKED)
SIGNS = {Kind.BETTER: "✓ ", Kind.MIXED: "± ", Kind.WORSE: "✕ ", Kind.NONE_SHOWN: "≈ "}


@dataclass(frozen=True)
class Column:
    """The head of a column."""

    name: str
    numeric: bool = True
    hint: str = ""


@dataclass(frozen=True)
class Cell:
    """A figure, and what it sorts by."""

    text: str
    key: str


@dataclass(frozen=True)
class Strip:
    """Difference and noise floor as a small picture, in units of -100..100."""

    position: float
    floor: float
    """Half the width of the floor; 0 when it isn't known."""


@dataclass(frozen=True)
class Row:
    """One run."""

    label: str
    tag: str
    is_base: bool
    verdict: str
    verdict_class: str
    verdict_rank: int
    difference: str
    difference_key: str
    strip: Strip | None
    cells: tuple[Cell, ...]


Take = Callable[[Judged], float]
Say = Callable[[float], str]

FIGURES: tuple[tuple[Column, Take, Say], ...] = (
    (Column("Held-out loss"), lambda one: one.measures.held_out, plain),
    (Column("LoRA file"), lambda one: one.measures.lora_bytes, size),
    (Column("Time", hint="Without sampling"), lambda one: one.measures.seconds, duration),
    (Column("Step", hint="Median"), lambda one: one.measures.step_median, step_time),
    (Column("Memory", hint="Peak of the process"), lambda one: one.measures.memory_process, size),
    (
        Column("Device memory", hint="Peak of the device"),
        lambda one: one.measures.memory_device,
        size,
    ),
    (
        Column("Gap", hint="Held-out loss − the same on as many training images"),
        lambda one: one.measures.gap,
        signed,
    ),
    (
        Column("Paired training loss", hint="Value − base under the same noise, last fifth"),
        lambda one: one.paired.tail if one.paired else math.nan,
        signed,
    ),
    (Column("Training loss", hint="Last fifth"), lambda one: one.measures.tail_loss, plain),
    (Column("Final d"), lambda one: one.measures.d_final, lambda x: plain(x, 3)),
    (
        Column("Peak DLR", hint="Highest d · lr of the UNet"),
        lambda one: one.measures.peak_dlr_unet,
        lambda x: plain(x, 3),
    ),
)


def make_table(study: Study) -> tuple[list[Column], list[Row]]:
    """The columns that hold anything, and a row a run in the study's order."""
    used = [
        figure for figure in FIGURES if any(math.isfinite(figure[1](one)) for one in study.judged)
    ]
    columns = [
        Column(study.sweep.parameter, numeric=False),
        Column("Verdict", numeric=False),
        Column("Held-out loss against the base", numeric=False),
        *(column for column, _, _ in used),
    ]
    reach = _reach(study)
    return columns, [_row(one, study, used, reach) for one in study.judged]


def _row(one: Judged, study: Study, used: list[tuple[Column, Take, Say]], reach: float) -> Row:
    run = one.run
    tags = [f"seed {run.seed}"] if run.is_base and run.seed is not None else []
    tags += [run.status] if not run.complete else []
    tags += ["reused"] if run.reused else []
    label = f"{study.sweep.base_value} ({run.name})" if run.is_base else one.label
    verdict = one.kind.value
    if run.is_base and one.run is not (study.base.run if study.base else None):
        verdict = "another seed"
    difference = one.relative if study.base is None or run is not study.base.run else math.nan
    return Row(
        label=label,
        tag=", ".join(tags),
        is_base=run.is_base or one.kind is Kind.BASE,
        verdict=SIGNS.get(one.kind, "") + verdict,
        verdict_class=one.kind.value.replace("no difference shown", "none").replace(" ", "-"),
        verdict_rank=VERDICT_ORDER.index(one.kind),
        difference=percent(difference),
        difference_key=_key(difference),
        strip=_strip(one, study, reach) if math.isfinite(difference) else None,
        cells=tuple(Cell(say(take(one)), _key(take(one))) for _, take, say in used),
    )


def _reach(study: Study) -> float:
    """The difference that a strip's end stands for."""
    differences = [abs(one.difference) for one in study.judged if math.isfinite(one.difference)]
    floor = study.floor.threshold if math.isfinite(study.floor.threshold) else 0.0
    largest = max([floor, *differences], default=0.0)
    return min(largest, floor / FLOOR_SHARE * 3) if floor else largest


def _strip(one: Judged, study: Study, reach: float) -> Strip | None:
    if not reach > 0:
        return None
    position = max(-1.0, min(1.0, one.difference / reach)) * STRIP
    floor = study.floor.threshold / reach * STRIP if math.isfinite(study.floor.threshold) else 0.0
    return Strip(round(position, 1), round(floor, 1))


def _key(value: float) -> str:
    return f"{value:.8g}" if math.isfinite(value) else ""
