"""The tables of values as the page shows them: verdicts by metric, and every other figure."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lora_lab.clock import duration
from lora_lab.config.metrics import Metric
from lora_lab.study.judge.metric_results import MetricResult, Verdict
from lora_lab.study.judge.verdict import Judged, Study
from lora_lab.study.report.spelling import listed, percent, plain, signed, size, step_time, way_text

STRIP = 95.0
"""Half the width of a strip in its own units."""
MARGIN_SHARE = 0.3
"""The margin takes at least this share of half a strip, so that it is to be seen."""
MAX_MARGIN_SHARE = 0.6
"""And at most this share, so that its ends are."""
MAX_WAYS = 8
"""Of so many values the way to real pictures is told; comparison.csv has all."""
SMALL_BASE = 1e-6
"""Below this mean of the base a difference is not told as a share of it."""
VERDICT_ORDER = (
    *(Verdict.BASE, Verdict.BETTER, Verdict.AS_GOOD, Verdict.MIXED, Verdict.NONE_SHOWN),
    *(Verdict.WORSE, Verdict.ENDED_EARLY, Verdict.NOT_RANKED),
)
SIGNS = {
    Verdict.BETTER: "✓",
    Verdict.MIXED: "±",
    Verdict.WORSE: "✕",
    Verdict.ENDED_EARLY: "✕",
    Verdict.AS_GOOD: "=",
    Verdict.NONE_SHOWN: "≈",
}


@dataclass(frozen=True)
class Column:
    """The head of a column."""

    name: str
    numeric: bool = True
    hint: str = ""


@dataclass(frozen=True)
class Strip:
    """Difference, interval and margin as a small picture, in units of -100..100."""

    position: float
    low: float
    high: float
    margin: float
    """Half the width of the margin within which a value is as good; 0 when it isn't known."""


@dataclass(frozen=True)
class Cell:
    """A figure, what it sorts by, and what stands behind it."""

    text: str
    key: str
    numeric: bool = True
    kind: str = ""
    """better, worse or none in one metric; empty where no verdict is given."""
    detail: str = ""
    """The interval, below the figure."""
    spoken: str = ""
    """Interval and reach in words."""
    strip: Strip | None = None


@dataclass(frozen=True)
class Row:
    """One run."""

    label: str
    tag: str
    is_base: bool
    verdict: str
    verdict_class: str
    verdict_rank: int
    cells: tuple[Cell, ...]


Take = Callable[[Judged], float]
Say = Callable[[float], str]
Figure = tuple[Column, Take, Say]

SHARE = "Without sampling; of runs that were trained at once, each one’s share"

COSTS: tuple[Figure, ...] = (
    (Column("LoRA file"), lambda one: one.measures.lora_bytes, size),
    (Column("Time", hint=SHARE), lambda one: one.measures.seconds, duration),
    (
        Column("Memory", hint="Peak of the process, with all runs of a stack"),
        lambda one: one.measures.memory_process,
        size,
    ),
    (
        Column("Device memory", hint="Peak of the device"),
        lambda one: one.measures.memory_device,
        size,
    ),
)
"""Stand beside the verdicts."""
FIGURES: tuple[Figure, ...] = (
    (Column("Held-out loss"), lambda one: one.measures.held_out, plain),
    (
        Column("Lowest held-out loss", hint="During the training"),
        lambda one: one.measures.held_out_best,
        plain,
    ),
    (
        Column("at step", hint="Of the lowest held-out loss"),
        lambda one: one.measures.held_out_best_step,
        plain,
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
    (Column("Steps"), lambda one: float(one.measures.steps or math.nan), lambda x: f"{x:.0f}"),
    (
        Column("Trained at once", hint="Runs that shared the passes of the base"),
        lambda one: float(one.measures.stack) if one.measures.stack > 1 else math.nan,
        lambda x: f"{x:.0f}",
    ),
    (Column("Median step", hint=SHARE), lambda one: one.measures.step_median, step_time),
    (Column("Training", hint=SHARE), lambda one: one.measures.seconds_training, duration),
    (
        Column("Held-out loss took", hint="Time for measuring it; of a stack, the run’s share"),
        lambda one: one.measures.seconds_held_out,
        duration,
    ),
    (
        Column("Sampling", hint="Time for drawing the images"),
        lambda one: one.measures.seconds_sampling,
        duration,
    ),
)


def make_table(study: Study) -> tuple[list[Column], list[Row]]:
    """Verdicts: one column per metric with its interval, and the costs.

    The base stands first, then one row per value, then the base's other seeds.
    """
    reaches = [_reach(study, metric) for metric in study.metrics]
    used = _used(study, COSTS)
    columns = [
        Column(study.sweep.parameter, numeric=False),
        Column("Verdict", numeric=False),
        *(Column(metric.title, False, _meaning(metric)) for metric in study.metrics),
        *(column for column, _, _ in used),
    ]
    rows = []
    other_seeds = [one for one in study.shown if one.run.is_base and one is not study.base]
    for one in sorted(study.shown, key=lambda one: (one in other_seeds, not one.run.is_base)):
        metrics = zip(study.metrics, reaches, strict=True)
        cells = [_metric_cell(one, metric, reach, study.margin) for metric, reach in metrics]
        rows.append(_row(one, study, (*cells, *_plain_cells(one, used))))
    return columns, rows


def make_figures(study: Study) -> tuple[list[Column], list[Row]]:
    """Every other figure that any run has; one row per run."""
    used = _used(study, FIGURES)
    columns = [Column(study.sweep.parameter, numeric=False), *(column for column, _, _ in used)]
    return columns, [_row(one, study, _plain_cells(one, used)) for one in study.judged]


def _used(study: Study, figures: Sequence[Figure]) -> list[Figure]:
    return [f for f in figures if any(math.isfinite(f[1](one)) for one in study.judged)]


def _plain_cells(one: Judged, used: Sequence[Figure]) -> tuple[Cell, ...]:
    return tuple(Cell(say(take(one)), _key(take(one))) for _, take, say in used)


def legend(study: Study) -> list[tuple[str, str]]:
    """Each metric's title with what it means and, of identity, how far each value has gone."""
    told = [(metric, f"{_meaning(metric)} {_way(study, metric)}") for metric in study.metrics]
    return [(metric.title, text.strip()) for metric, text in told]


def _meaning(metric: Metric) -> str:
    better = "lower" if metric.lower_is_better else "higher"
    judged = f"{better} is better" if metric.judged else "shown only, not judged"
    return f"{metric.meaning} {metric.unit}; {judged}."


def _way(study: Study, metric: Metric) -> str:
    """Identity as a share of the way from the bare base to real pictures."""
    found = [(one, result) for one in study.values if (result := one.result(metric.name))]
    known = [(one, result) for one, result in found if math.isfinite(result.way)]
    if not known:
        return ""
    first = known[0][1]
    goes = [f"{study.sweep.base_value}: {way_text(first.way_of(first.base_mean))}"]
    goes += [f"{one.label}: {way_text(result.way)}" for one, result in known]
    return (
        f"The bare base reaches {plain(first.floor)}, real pictures of the subject among each "
        f"other {plain(first.ceiling)}. Share of this way: {listed(goes, MAX_WAYS)}."
    )


def _row(one: Judged, study: Study, cells: tuple[Cell, ...]) -> Row:
    run = one.run
    # A run that was named by its seed says it already.
    named = run.name.endswith(f"seed={run.seed}")
    tags = [f"seed {run.seed}"] if run.is_base and run.seed is not None and not named else []
    tags += [run.status] if not run.complete and not run.ended_early else []
    tags += ["reused"] if run.reused else []
    verdict = run.ended_early or one.verdict.value
    if run.is_base and one.run is not (study.base.run if study.base else None):
        own_seed = study.base is not None and run.seed != study.base.run.seed
        verdict = "another seed" if own_seed else "trained again"
    return Row(
        label=f"{study.sweep.base_value} ({run.name})" if run.is_base else one.label,
        tag=", ".join(tags),
        is_base=run.is_base or one.verdict is Verdict.BASE,
        verdict=" ".join(filter(None, [SIGNS.get(one.verdict, ""), verdict])),
        verdict_class=_class(one.verdict),
        verdict_rank=VERDICT_ORDER.index(one.verdict),
        cells=cells,
    )


def _class(verdict: Verdict) -> str:
    return verdict.value.replace("no difference seen", "none").replace(" ", "-")


def _metric_cell(one: Judged, metric: Metric, reach: float, margin: float) -> Cell:
    result = one.result(metric.name)
    if result is None:
        return Cell("–", "", numeric=False)
    if not math.isfinite(result.effect):
        return Cell(plain(result.mean), "", numeric=False, detail="mean", spoken=result.reason)
    say = _say(result)
    interval = ""
    if math.isfinite(result.low):
        interval = f"{say(result.low)} to {say(result.high)}"
    spoken = [f"interval {interval}"] if interval else []
    spoken += [f"would have seen ±{say(result.detectable)[1:]}"] if result.detectable > 0 else []
    sign = SIGNS.get(result.verdict, "") if metric.judged else ""
    return Cell(
        text=" ".join(filter(None, [sign, say(result.effect)])),
        key=_key(result.effect),
        numeric=False,
        kind=_class(result.verdict) if metric.judged else "",
        detail=interval,
        spoken="; ".join(spoken),
        strip=_strip(result, reach, margin),
    )


def _say(result: MetricResult) -> Say:
    """How differences of a metric are written: as a share of the base's mean if that is one."""
    if abs(result.base_mean) > SMALL_BASE:
        return lambda difference: percent(difference / abs(result.base_mean))
    return signed


def _reach(study: Study, metric: Metric) -> float:
    """The difference that a strip's end stands for, the same in all rows."""
    found = [result for one in study.values if (result := one.result(metric.name))]
    margin = max((study.margin * abs(r.base_mean) for r in found if r.base_mean), default=0.0)
    ends = [
        abs(end)
        for result in found
        for end in (result.effect, result.low, result.high)
        if math.isfinite(end)
    ]
    largest = max([margin / MAX_MARGIN_SHARE, *ends], default=0.0)
    return min(largest, margin / MARGIN_SHARE * 3) if margin else largest


def _strip(result: MetricResult, reach: float, margin: float) -> Strip | None:
    if not reach > 0:
        return None

    def place(difference: float) -> float:
        return round(max(-1.0, min(1.0, difference / reach)) * STRIP, 1)

    low, high = (end if math.isfinite(end) else result.effect for end in _ends(result))
    width = place(margin * abs(result.base_mean)) if math.isfinite(result.base_mean) else 0.0
    return Strip(place(result.effect), place(low), place(high), width)


def _ends(result: MetricResult) -> tuple[float, float]:
    return result.low, result.high


def _key(value: float) -> str:
    return f"{value:.8g}" if math.isfinite(value) else ""
