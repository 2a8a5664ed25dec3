"""val_loss.png: loss on held-out images, its difference to the base, each timestep, the gap."""

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lora_lab.study.figures.colours import draw_scale, label_margin, shorten
from lora_lab.study.figures.curve_axes import (
    XY,
    Pen,
    column,
    curves,
    draw_curves,
    fit_limits,
    label_curves,
)
from lora_lab.study.figures.style import nothing_measured, panels, plain_axis, tidy
from lora_lab.study.judge.run_measures import strata
from lora_lab.study.judge.verdict import Judged
from lora_lab.study.read.held_out_file import HELD_OUT, TRAIN_LOSS

MAX_TICK = 8
TICK_SIGNS = 32
"""Letters that fit below a panel."""


def draw(pen: Pen) -> Figure:
    """Draw the held-out loss in all its parts."""
    names: dict[int, str] = {}
    for one in pen.study.judged:
        names |= strata(one.run.metrics)
    has_gap = any(one.run.metrics.measured(TRAIN_LOSS) for one in pen.study.judged)
    margin = label_margin(["base", *(one.label for one in pen.values)], pen.colours, pen.layout)
    figure, axes_list = panels(pen.layout, 2 + len(names) + has_gap, margin)
    _difference_panel(axes_list[0], pen)
    _curve_panel(axes_list[1], pen, "Mean over all timesteps", HELD_OUT)
    for axes, timestep in zip(axes_list[2:], sorted(names), strict=False):
        _curve_panel(axes, pen, f"Timestep {timestep}", names[timestep])
    if has_gap:
        _gap_panel(axes_list[-1], pen)
    last_column = range(pen.layout.columns - 1, len(axes_list), pen.layout.columns)
    for index in sorted({*last_column, len(axes_list) - 1} - {0}):
        _label_panel(axes_list[index], pen, names, index, has_gap and index == len(axes_list) - 1)
    if not pen.colours.few:
        draw_scale(figure, pen.colours, pen.layout, margin, pen.study.sweep.parameter)
    return figure


def _curve_panel(axes: Axes, pen: Pen, title: str, name: str) -> None:
    tidy(axes, pen.theme, title, "step")
    values, base = curves(pen.values, column(name)), curves(pen.base, column(name))
    if not values and not base:
        nothing_measured(axes, pen.theme)
        return
    draw_curves(axes, pen, values, base)
    fit_limits(axes, [*values, *base])
    plain_axis(axes)


def _gap_panel(axes: Axes, pen: Pen) -> None:
    tidy(axes, pen.theme, "Gap: held-out − training images", "step")
    values, base = curves(pen.values, _gap), curves(pen.base, _gap)
    draw_curves(axes, pen, values, base)
    fit_limits(axes, [*values, *base])
    plain_axis(axes)


def _gap(one: Judged) -> XY:
    metrics = one.run.metrics
    return metrics.steps, metrics.column(HELD_OUT) - metrics.column(TRAIN_LOSS)


def _label_panel(axes: Axes, pen: Pen, names: dict[int, str], index: int, is_gap: bool) -> None:
    """Label the lines of a panel that stands at the right-hand edge."""
    by_panel = [HELD_OUT, *(names[timestep] for timestep in sorted(names))]
    take = _gap if is_gap else column(by_panel[index - 1])
    label_curves(axes, pen, curves(pen.values, take), curves(pen.base, take))


def _difference_panel(axes: Axes, pen: Pen) -> None:
    """One dot a value: its difference to the base at the end, with its interval."""
    tidy(axes, pen.theme, "At the end: value − base", pen.study.sweep.parameter)
    shown = [
        (one, result)
        for one in pen.values
        if (result := one.result("held_out_loss")) and math.isfinite(result.effect)
    ]
    if not shown:
        nothing_measured(axes, pen.theme, "nothing could be ranked")
        return
    axes.axhline(0, color=pen.theme.base, linewidth=2.6, zorder=2)
    places = np.arange(len(shown))
    size = 60 if len(shown) <= 20 else max(8, 1200 / len(shown))
    colours = [pen.colours.of[one.label] for one, _ in shown]
    lows, highs = ([getattr(result, end) for _, result in shown] for end in ("low", "high"))
    axes.vlines(places, lows, highs, colors=colours, linewidth=2)
    axes.scatter(places, [result.effect for _, result in shown], s=size, c=colours, zorder=3)
    axes.grid(False, axis="x")
    plain_axis(axes)
    longest = max(len(shorten(one.label, MAX_TICK)) for one, _ in shown)
    stride = -(-len(shown) * (longest + 1) // TICK_SIGNS)
    axes.set_xticks(places[::stride])
    axes.set_xticklabels([shorten(one.label, MAX_TICK) for one, _ in shown[::stride]])
    axes.set_xlim(-0.6, len(shown) - 0.4)
