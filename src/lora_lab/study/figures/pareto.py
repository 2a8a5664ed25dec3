"""pareto.png: each metric against what a value costs; the line joins what nothing beats in both."""

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lora_lab.config.metrics import Metric
from lora_lab.study.figures.colours import shorten
from lora_lab.study.figures.curve_axes import Pen
from lora_lab.study.figures.effects import MARKS, colour_of
from lora_lab.study.figures.style import nothing_measured, panels, plain_axis, tidy
from lora_lab.study.judge.metric_results import Verdict
from lora_lab.study.judge.verdict import Judged

COSTS: tuple[tuple[str, Callable[[Judged], float]], ...] = (
    ("LoRA file, MB", lambda one: one.measures.lora_bytes / 1e6),
    ("time of a run, minutes", lambda one: one.measures.seconds / 60),
)
MAX_METRICS = 3
"""The first metrics; the table has all."""
MAX_NAMED = 12
ALIKE = 0.02
"""Costs that differ by less than this share are the same."""

Point = tuple[float, float, Judged]
"""Cost, metric, and whose they are."""


def draw(pen: Pen) -> Figure:
    """Draw one panel per metric against the file size, or the time where files are alike."""
    title, cost = chosen_cost(pen)
    metrics = [m for m in pen.study.metrics if m.judged and _points(pen, m, cost)][:MAX_METRICS]
    figure, axes_list = panels(pen.layout, max(1, len(metrics)), 0.5)
    if not metrics:
        tidy(axes_list[0], pen.theme, "Metric against cost", title)
        nothing_measured(axes_list[0], pen.theme, "nothing to compare")
    for axes, metric in zip(axes_list, metrics, strict=False):
        _panel(axes, pen, metric, title, _points(pen, metric, cost))
    return figure


def chosen_cost(pen: Pen) -> tuple[str, Callable[[Judged], float]]:
    """The first cost in which the runs differ."""
    for title, cost in COSTS:
        found = [c for one in (*pen.base[:1], *pen.values) if math.isfinite(c := cost(one))]
        if found and max(found) - min(found) > ALIKE * max(found):
            return title, cost
    return COSTS[0]


def frontier(points: Sequence[tuple[float, float]], lower_is_better: bool) -> list[int]:
    """Places of the points that none beats in cost without being worse, the cheapest first.

    Args:
        points: Cost and metric of each.
        lower_is_better: Of the metric; of the cost it always is.
    """
    sign = 1.0 if lower_is_better else -1.0
    order = sorted(range(len(points)), key=lambda i: (points[i][0], sign * points[i][1]))
    best, kept = math.inf, []
    for place in order:
        if sign * points[place][1] < best:
            best = sign * points[place][1]
            kept.append(place)
    return kept


def _points(pen: Pen, metric: Metric, cost: Callable[[Judged], float]) -> list[Point]:
    """The base and every value that was measured in the metric."""
    found: list[Point] = []
    for one in (*pen.base[:1], *pen.values):
        result = one.result(metric.name)
        mean = result.mean if result else math.nan
        if one.run.is_base:
            means = [r.base_mean for v in pen.values if (r := v.result(metric.name))]
            mean = means[0] if means and math.isfinite(means[0]) else mean
        if math.isfinite(mean) and math.isfinite(cost(one)):
            found.append((cost(one), mean, one))
    return found if len(found) > 1 else []


def _panel(axes: Axes, pen: Pen, metric: Metric, title: str, points: Sequence[Point]) -> None:
    better = "lower" if metric.lower_is_better else "higher"
    tidy(axes, pen.theme, f"{metric.title} ({better} is better)", title)
    edge = frontier([(cost, mean) for cost, mean, _ in points], metric.lower_is_better)
    axes.plot(
        [points[i][0] for i in edge],
        [points[i][1] for i in edge],
        color=pen.theme.muted,
        linewidth=1.2,
        linestyle=(0, (4, 3)),
        zorder=1,
    )
    for cost, mean, one in points:
        result = one.result(metric.name)
        verdict = result.verdict if result and not one.run.is_base else Verdict.BASE
        colour = pen.theme.base if verdict is Verdict.BASE else colour_of(verdict, pen.theme)
        hollow = verdict is Verdict.NONE_SHOWN
        mark = "D" if verdict is Verdict.BASE else MARKS.get(verdict, ("d", ""))[0]
        face = pen.theme.paper if hollow else colour
        axes.scatter([cost], [mean], s=56, marker=mark, color=face, edgecolor=colour, zorder=3)
        if len(points) <= MAX_NAMED:
            label = pen.study.sweep.base_value if verdict is Verdict.BASE else one.label
            axes.annotate(
                shorten(label, 12),
                (cost, mean),
                xytext=(7, 5),
                textcoords="offset points",
                color=colour,
                fontsize=pen.layout.font - 1,
            )
    costs = [cost for cost, _, _ in points]
    axes.set_xlim(0, 1.12 * max(costs))
    axes.margins(y=0.16)
    plain_axis(axes, integers_below=False)
