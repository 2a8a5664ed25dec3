"""cost.png: time, time a step, memory and file size of each run."""

import math
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lora_lab.study.figures.colours import shorten
from lora_lab.study.figures.curve_axes import Pen
from lora_lab.study.figures.style import FigureSize, new_figure, nothing_measured, plain_axis, tidy
from lora_lab.study.judge.verdict import Judged

MEGA = 1e6
MAX_BARS = 30
"""More runs than this are drawn as dots in order, not as labelled bars."""
PANELS: tuple[tuple[str, Callable[[Judged], float]], ...] = (
    ("Time, minutes", lambda one: one.measures.seconds / 60),
    ("Median step, s", lambda one: one.measures.step_median),
    ("Peak memory, GB", lambda one: _memory(one) / 1e9),
    ("LoRA file, MB", lambda one: one.measures.lora_bytes / MEGA),
)


def draw(pen: Pen) -> Figure:
    """Draw the costs: bars for up to thirty runs, dots for more."""
    shown = [one for one in pen.study.shown if one.run.complete]
    bars = len(shown) <= MAX_BARS
    figure, axes_list = _layout(pen.layout, len(shown) if bars else 0)
    for index, (axes, (title, take)) in enumerate(zip(axes_list, PANELS, strict=True)):
        figures = np.array([take(one) for one in shown], np.float64)
        tidy(axes, pen.theme, title, "")
        if not np.isfinite(figures).any():
            nothing_measured(axes, pen.theme)
            continue
        if bars:
            named = pen.layout.columns == 1 or index == 0
            _bars(axes, pen, shown, figures, named)
        else:
            _dots(axes, pen, shown, figures)
    return figure


def _layout(layout: FigureSize, rows: int) -> tuple[Figure, list[Axes]]:
    """Four panels beside each other, or below each other on a narrow page."""
    bar_height = 0.30 * max(rows, 3) + 0.5
    if layout.columns > 1:
        height = (bar_height if rows else 2.9) + 0.6
        figure = new_figure(layout, height)
        places = (1, 4)
    else:
        height = 4 * ((bar_height if rows else 1.9) + 0.35)
        figure = new_figure(layout, height)
        places = (4, 1)
    grid = figure.add_gridspec(
        *places,
        left=1.15 / layout.width,
        right=1 - 0.55 / layout.width,
        top=1 - 0.4 / height,
        bottom=0.3 / height,
        wspace=0.42,
        hspace=0.42 if rows <= 8 else 0.2,
    )
    return figure, [figure.add_subplot(grid[index]) for index in range(4)]


def _bars(axes: Axes, pen: Pen, shown: list[Judged], figures: np.ndarray, named: bool) -> None:
    places = np.arange(len(shown))[::-1]
    heights = np.where(np.isfinite(figures), figures, 0.0)
    colours = [
        pen.theme.base if one.run.is_base else pen.colours.of.get(one.label, pen.theme.muted)
        for one in shown
    ]
    axes.barh(places, heights, height=0.62, color=colours)
    for place, figure in zip(places, figures, strict=True):
        text = f"{figure:.3g}" if math.isfinite(figure) else "–"
        axes.annotate(
            text,
            (figure if math.isfinite(figure) else 0, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=pen.theme.ink,
            fontsize=pen.layout.font - 1,
        )
    axes.set_yticks(places)
    axes.set_yticklabels([shorten(one.label, 14) if named else "" for one in shown])
    for one, tick in zip(shown, axes.get_yticklabels(), strict=True):
        tick.set_color(pen.theme.base if one.run.is_base else pen.theme.ink)
    axes.set_xlim(0, 1.18 * max(float(heights.max()), 1e-12))
    axes.set_xticks([])
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)


def _dots(axes: Axes, pen: Pen, shown: list[Judged], figures: np.ndarray) -> None:
    values = [i for i, one in enumerate(shown) if not one.run.is_base]
    base = [i for i, one in enumerate(shown) if one.run.is_base]
    colours = [pen.colours.of.get(shown[i].label, pen.theme.muted) for i in values]
    axes.scatter(np.arange(len(values)), figures[values], s=9, c=colours)
    for i in base:
        axes.axhline(figures[i], color=pen.theme.base, linewidth=1.6, zorder=1)
    plain_axis(axes)
    ends = [0, len(values) // 2, len(values) - 1]
    axes.set_xticks(ends)
    axes.set_xticklabels([shorten(shown[values[i]].label, 7) for i in ends])
    axes.set_ylim(0, 1.15 * float(np.nanmax(figures)))


def _memory(one: Judged) -> float:
    device = one.measures.memory_device
    return device if math.isfinite(device) and device > 0 else one.measures.memory_process
