"""loss.png and loss_paired.png: training loss by epoch, and paired against the base."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lora_lab.study.figures.colours import draw_scale, label_margin
from lora_lab.study.figures.curve_axes import (
    XY,
    Curve,
    Pen,
    band_of,
    curves,
    draw_curves,
    fit_limits,
    label_curves,
    thin,
)
from lora_lab.study.figures.style import nothing_measured, panels, plain_axis, tidy
from lora_lab.study.judge.pair import epoch_curve
from lora_lab.study.judge.verdict import Judged

HEIGHT = 4.3  # inches
BAND_DEVIATIONS = 2.0
"""How far the band of another seed reaches to each side, in standard deviations."""
FULL_BAND = 3.0
"""The band of another seed is drawn whole up to so many times the largest paired difference."""


def draw_loss(pen: Pen) -> Figure:
    """Draw the mean training loss of each epoch."""
    figure, axes, margin = _one_panel(pen)
    values = curves(pen.values, lambda one: epoch_curve(one.run))
    base = curves(pen.base, lambda one: epoch_curve(one.run))
    tidy(axes, pen.theme, "Training loss, mean of each epoch", "epoch")
    if not values and not base:
        nothing_measured(axes, pen.theme)
        return figure
    draw_curves(axes, pen, values, base)
    fit_limits(axes, [*values, *base])
    plain_axis(axes)
    label_curves(axes, pen, values, base)
    if not pen.colours.few:
        draw_scale(figure, pen.colours, pen.layout, margin, pen.study.sweep.parameter)
    return figure


def draw_paired(pen: Pen) -> Figure:
    """Draw value - base, smoothed: the mean over a value's seeds with the band that they span.

    What another seed of the base does is a band of its own.
    """
    figure, axes, margin = _one_panel(pen)
    seeds_of = {one.label: _seeds_of(one, pen) for one in pen.values}
    runs = [run for found in seeds_of.values() for run in found]
    paired = [one for one in (*runs, *pen.base[1:]) if one.paired is not None]
    units = sorted({one.paired.unit for one in paired if one.paired is not None})
    take = _smoothed if len(units) < 2 else _smoothed_by_share
    by_value = {label: curves(found, take) for label, found in seeds_of.items()}
    means = {label: mean_curve(label, found) for label, found in by_value.items()}
    values = [curve for curve in means.values() if curve is not None]
    seeds = curves(pen.base[1:], take)
    title = "Training loss: value − base, paired"
    tidy(axes, pen.theme, title, units[0] if len(units) == 1 else "% of the training")
    if not values and not seeds:
        nothing_measured(axes, pen.theme, "nothing could be paired")
        return figure
    axes.axhline(0, color=pen.theme.base, linewidth=2.6, zorder=2.8)
    spanned = _draw_spans(axes, pen, by_value)
    draw_curves(axes, pen, values, [])
    band = _draw_band(axes, pen, values)
    if band or not values:
        for curve in seeds:
            axes.plot(*thin(curve), color=pen.theme.base, linewidth=0.8, alpha=0.45)
    fit_limits(axes, values or seeds, include=(0.0, *spanned, *band))
    plain_axis(axes)
    end = max([*values, *seeds], key=lambda curve: curve.x[-1])
    label_curves(axes, pen, values, [Curve("base", end.x[-1:], 0.0 * end.y[-1:])])
    if not pen.colours.few:
        draw_scale(figure, pen.colours, pen.layout, margin, pen.study.sweep.parameter)
    return figure


def _seeds_of(one: Judged, pen: Pen) -> list[Judged]:
    """All runs of a value that were trained to their end, or else what there is of them."""
    runs = [other for other in pen.study.judged if other.run.value == one.run.value]
    runs = [other for other in runs if not other.run.is_base and other.paired is not None]
    return [other for other in runs if other.run.complete] or runs


def mean_curve(label: str, seeds: Sequence[Curve]) -> Curve | None:
    """The mean of the curves of several seeds at the points that all share; None without any."""
    band = band_of(list(seeds))
    if band is None:
        return Curve(label, seeds[0].x, seeds[0].y) if seeds else None
    shared = band[0]
    figures = [curve.y[np.isin(curve.x, shared)] for curve in seeds]
    return Curve(label, shared, np.mean(figures, axis=0))


def _draw_spans(axes: Axes, pen: Pen, by_value: Mapping[str, list[Curve]]) -> list[float]:
    """Draw from the lowest to the highest seed of each value; return the outermost figures."""
    ends: list[float] = []
    for label, seeds in by_value.items() if pen.colours.few else ():
        band = band_of(seeds)
        if band is not None:
            shared, low, high = band
            colour = pen.colours.of.get(label, pen.theme.muted)
            axes.fill_between(shared, low, high, color=colour, alpha=0.2, linewidth=0, zorder=2.2)
            ends += [float(low.min()), float(high.max())]
    return ends


def _draw_band(axes: Axes, pen: Pen, values: list[Curve]) -> tuple[float, ...]:
    """Draw what another seed does as a band; return its edges where they are to be seen.

    Another seed draws other noise, which pairing takes out of the values: where the band is so
    wide that the values would look alike inside it, its width is said instead, and the lines of
    other seeds are left out.
    """
    reach = BAND_DEVIATIONS * pen.study.floor.training_sd
    if not reach > 0:
        return ()
    axes.axhspan(-reach, reach, color=pen.theme.base, alpha=0.13, linewidth=0)
    largest = max((float(np.abs(curve.y).max()) for curve in values), default=reach)
    if reach <= FULL_BAND * largest:
        return -reach, reach
    axes.text(
        0.01,
        0.02,
        f"another seed's noise: ±{reach:.2g}, wider than this panel",
        transform=axes.transAxes,
        color=pen.theme.base,
        fontsize=pen.layout.font - 1,
    )
    return ()


def _smoothed(one: Judged) -> XY:
    if one.paired is None:
        return np.zeros(0), np.zeros(0)
    return one.paired.points.astype(np.float64), one.paired.smoothed


def _smoothed_by_share(one: Judged) -> XY:
    points, smoothed = _smoothed(one)
    return (points / points[-1] * 100 if len(points) else points), smoothed


def _one_panel(pen: Pen) -> tuple[Figure, Axes, float]:
    labels = ["base", *(one.label for one in pen.values)]
    margin = label_margin(labels, pen.colours, pen.layout)
    height = HEIGHT if pen.layout.columns > 1 else 3.4
    figure, (axes,) = panels(pen.layout, 1, margin, height)
    return figure, axes, margin
