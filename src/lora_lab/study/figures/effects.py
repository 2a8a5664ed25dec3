"""effects.png: each value's difference to the base in each metric, with its interval and seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from lora_lab.config.metrics import Metric
from lora_lab.study.figures.colours import shorten
from lora_lab.study.figures.curve_axes import Pen
from lora_lab.study.figures.style import FigureSize, Theme, new_figure, nothing_measured, tidy
from lora_lab.study.judge.metric_results import MetricResult, Verdict
from lora_lab.study.judge.verdict import Judged

SMALL_BASE = 1e-6
"""Below this mean of the base a difference is not told as a share of it."""
MAX_NAMED = 30
"""More values than this are drawn without their names."""
MAX_LABEL = 14
ROW, EDGES, LEGEND = 0.36, 1.0, 0.5  # inches
REACH = 1.12
"""The axis goes a little beyond the outermost end."""
RUNAWAY = 4.0
"""An end so many times as far out as the others' is cut off, so that they are to be seen."""
MARKS = {
    Verdict.BETTER: ("^", "better"),
    Verdict.WORSE: ("v", "worse"),
    Verdict.AS_GOOD: ("s", "as good"),
    Verdict.NONE_SHOWN: ("o", "no difference seen"),
}
"""Verdict -> shape and word; colour says it a second time."""


@dataclass(frozen=True)
class FigureRow:
    """One value in one metric, in the unit of the axis."""

    label: str
    verdict: Verdict
    effect: float
    low: float
    high: float
    seeds: tuple[float, ...]


def draw(pen: Pen) -> Figure:
    """Draw one panel per judged metric and one row per value."""
    metrics = [m for m in pen.study.metrics if m.judged and any(_rows(pen.values, m))]
    named = len(pen.values) <= MAX_NAMED
    figure, panels = _layout(pen, max(1, len(metrics)), named)
    if not metrics:
        tidy(panels[0], pen.theme, "Value − base", "")
        nothing_measured(panels[0], pen.theme, "nothing could be judged")
        return figure
    for index, (axes, metric) in enumerate(zip(panels, metrics, strict=True)):
        first = index % _columns(pen.layout, len(metrics)) == 0
        _panel(axes, pen, metric, named and first)
    _legend(figure, pen)
    return figure


def colour_of(verdict: Verdict, theme: Theme) -> str:
    """Green and up for better, orange and down for worse, grey for the rest."""
    return {Verdict.BETTER: theme.good, Verdict.WORSE: theme.bad}.get(verdict, theme.muted)


def _rows(values: Sequence[Judged], metric: Metric) -> list[FigureRow]:
    rows = []
    for one in values:
        result = one.result(metric.name)
        if result is not None and math.isfinite(result.effect):
            unit = _unit(result)
            low, high = (end if math.isfinite(end) else result.effect for end in _ends(result))
            seeds = tuple(seed * unit for seed in result.by_seed)
            figures = (result.effect * unit, low * unit, high * unit)
            rows.append(FigureRow(one.label, result.verdict, *figures, seeds))
    return rows


def _ends(result: MetricResult) -> tuple[float, float]:
    return result.low, result.high


def _unit(result: MetricResult) -> float:
    """Factor from the metric's own unit to the axis': percent of the base, or as it is."""
    return 100 / abs(result.base_mean) if abs(result.base_mean) > SMALL_BASE else 1.0


def _panel(axes: Axes, pen: Pen, metric: Metric, named: bool) -> None:
    rows = _rows(pen.values, metric)
    results = [result for one in pen.values if (result := one.result(metric.name))]
    shares = any(abs(result.base_mean) > SMALL_BASE for result in results)
    better = "← better" if metric.lower_is_better else "better →"
    tidy(axes, pen.theme, metric.title, f"value − base{', %' if shares else ''}    {better}")
    if shares and pen.study.margin > 0:
        width = 100 * pen.study.margin
        axes.axvspan(-width, width, color=pen.theme.muted, alpha=0.13, linewidth=0)
    axes.axvline(0, color=pen.theme.base, linewidth=2.4, zorder=2)
    height = len(pen.values)
    places = {one.label: height - 1 - place for place, one in enumerate(pen.values)}
    for row in rows:
        _draw_row(axes, pen, row, places[row.label])
    axes.set_ylim(-0.7, height - 0.3)
    axes.set_yticks(list(places.values()))
    axes.set_yticklabels([shorten(label, MAX_LABEL) if named else "" for label in places])
    for tick in axes.get_yticklabels():
        tick.set_color(pen.theme.ink)
    axes.grid(False, axis="y")
    reach = _reach(rows)
    axes.set_xlim(-reach, reach)
    axes.xaxis.set_major_locator(MaxNLocator(5, symmetric=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:+.3g}".replace("-", "−")))


def _draw_row(axes: Axes, pen: Pen, row: FigureRow, place: int) -> None:
    colour = colour_of(row.verdict, pen.theme)
    mark = MARKS.get(row.verdict, ("d", ""))[0]
    hollow = row.verdict is Verdict.NONE_SHOWN
    below = [place - 0.24] * len(row.seeds)
    axes.scatter(row.seeds, below, s=9, color=pen.theme.muted, alpha=0.8, linewidths=0, zorder=3)
    axes.hlines(place, row.low, row.high, color=colour, linewidth=2.4, zorder=3)
    axes.scatter(
        [row.effect],
        [place],
        s=62,
        marker=mark,
        facecolor=pen.theme.paper if hollow else colour,
        edgecolor=colour,
        linewidths=1.8,
        zorder=4,
    )


def _reach(rows: Sequence[FigureRow]) -> float:
    """The end of the axis; a runaway interval is cut rather than hiding all others."""
    ends = [max(abs(row.low), abs(row.high), *map(abs, row.seeds), 0.0) for row in rows]
    limit = RUNAWAY * float(np.median(ends))
    effects = max(abs(row.effect) for row in rows)
    return REACH * (max(min(max(ends), limit), effects) or 1.0)


def _columns(layout: FigureSize, count: int) -> int:
    return min(layout.columns, count)


def _layout(pen: Pen, count: int, named: bool) -> tuple[Figure, list[Axes]]:
    """Panels beside each other as the layout has columns, the names left of the first ones."""
    layout = pen.layout
    columns = _columns(layout, count)
    rows = -(-count // columns)
    panel = ROW * max(len(pen.values), 2) if named else 3.4
    height = rows * (panel + EDGES) + LEGEND
    figure = new_figure(layout, height)
    longest = max((len(shorten(one.label, MAX_LABEL)) for one in pen.values), default=1)
    left = 0.3 + (longest * layout.font * 0.66 / 72 if named else 0.0)
    grid = figure.add_gridspec(
        rows,
        columns,
        left=left / layout.width,
        right=1 - 0.25 / layout.width,
        top=1 - 0.42 / height,
        bottom=(0.58 + LEGEND) / height,
        wspace=0.12,
        hspace=(EDGES / panel) if rows > 1 else 0,
    )
    return figure, [figure.add_subplot(grid[i // columns, i % columns]) for i in range(count)]


def _legend(figure: Figure, pen: Pen) -> None:
    """Shapes and their words, below the panels."""
    theme = pen.theme
    handles = [
        Line2D(
            [],
            [],
            marker=mark,
            color=colour_of(verdict, theme),
            markerfacecolor=(
                theme.paper if verdict is Verdict.NONE_SHOWN else colour_of(verdict, theme)
            ),
            markersize=7,
            label=word,
            linewidth=2,
        )
        for verdict, (mark, word) in MARKS.items()
    ]
    dot = Line2D([], [], marker=".", color=theme.muted, linestyle="", markersize=6)
    dot.set_label("one seed")
    figure.legend(
        handles=[*handles, dot],
        loc="lower center",
        ncols=5 if pen.layout.columns > 1 else 3,
        frameon=False,
        fontsize=pen.layout.font - 1,
    )
