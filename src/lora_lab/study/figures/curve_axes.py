"""Lines of many runs in one panel: values in their colours, the base in red with its band.

Shapes: P points of a curve.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lora_lab.study.figures.colours import Colours, colours_of, label_ends
from lora_lab.study.figures.style import FigureSize, Theme
from lora_lab.study.judge.metric_results import Verdict
from lora_lab.study.judge.verdict import Judged, Study

MAX_POINTS = 1200
"""More points than this are not to be seen; every n-th is drawn."""
OUTLIERS = 1.0
"""Percent of the figures at either end that may lie outside of a panel, if they are far off."""
RUNAWAY = 3.0
"""Far off: all figures span more than this factor of what the others span."""


XY = tuple[NDArray[Any], NDArray[np.float64]]
"""Points and the figures there, (P,) each."""


@dataclass(frozen=True)
class Curve:
    """One line."""

    label: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]


@dataclass(frozen=True)
class Pen:
    """What every panel of a figure is drawn with."""

    study: Study
    theme: Theme
    layout: FigureSize
    colours: Colours

    @property
    def values(self) -> tuple[Judged, ...]:
        """The runs of the values that are not the base's own."""
        return tuple(one for one in self.study.values if one.verdict is not Verdict.BASE)

    @property
    def base(self) -> tuple[Judged, ...]:
        """The base runs with the reference's inputs that were trained to their end."""
        return tuple(
            one
            for one in self.study.judged
            if one.run.is_base and one.run.complete and not one.reason
        )


def pen_for(study: Study, theme: Theme, layout: FigureSize) -> Pen:
    """The pen of one study on one paper."""
    values = [one.label for one in study.values if one.verdict is not Verdict.BASE]
    return Pen(study, theme, layout, colours_of(values, theme))


def curves(runs: Sequence[Judged], take: Callable[[Judged], XY]) -> list[Curve]:
    """One curve a run, from the points and figures that ``take`` finds; empty ones left out."""
    found = []
    for one in runs:
        x, y = take(one)
        known = np.isfinite(y)
        if known.any():
            found.append(Curve(one.label, np.asarray(x, float)[known], y[known]))
    return found


def column(name: str) -> Callable[[Judged], XY]:
    """Take a column of metrics.csv over the steps."""
    return lambda one: (one.run.metrics.steps, one.run.metrics.column(name))


def draw_curves(axes: Axes, pen: Pen, values: list[Curve], base: list[Curve]) -> None:
    """Draw the values' lines, the base's band over its seeds and its first seed in red."""
    width = 1.6 if len(values) <= 8 else 1.0
    for curve in values:
        colour = pen.colours.of.get(curve.label, pen.theme.muted)
        axes.plot(*thin(curve), color=colour, linewidth=width, alpha=0.9, marker=_marker(curve))
    band = band_of(base)
    if band is not None:
        x, low, high = band
        axes.fill_between(x, low, high, color=pen.theme.base, alpha=0.22, linewidth=0, zorder=2.5)
    if base:
        red, dot = pen.theme.base, _marker(base[0])
        axes.plot(*thin(base[0]), color=red, linewidth=2.6, zorder=3, marker=dot)


def _marker(curve: Curve) -> str:
    """A dot where a line would have no length."""
    return "o" if len(curve.x) == 1 else ""


def thin(curve: Curve) -> XY:
    """At most MAX_POINTS points of a curve, the last one among them."""
    stride = -(-len(curve.x) // MAX_POINTS)
    keep = np.arange(len(curve.x) - 1, -1, -stride)[::-1]
    return curve.x[keep], curve.y[keep]


def band_of(base: list[Curve]) -> tuple[NDArray[np.float64], ...] | None:
    """Points that all seeds share, and the lowest and highest figure of any seed there."""
    if len(base) < 2:
        return None
    shared = base[0].x
    for curve in base[1:]:
        shared = np.intersect1d(shared, curve.x)
    if len(shared) == 0:
        return None
    seeds = np.stack([curve.y[np.isin(curve.x, shared)] for curve in base])  # (R, P)
    return shared, seeds.min(axis=0), seeds.max(axis=0)


def fit_limits(axes: Axes, lines: Sequence[Curve], include: Sequence[float] = ()) -> None:
    """Limits that hold every line, but not the runaway ends that would hide all others."""
    if not lines:
        return
    figures = np.concatenate([curve.y for curve in lines])
    low, high = np.percentile(figures, [OUTLIERS, 100 - OUTLIERS])
    if np.ptp(figures) > RUNAWAY * (high - low) > 0:
        figures = figures[(figures >= low) & (figures <= high)]
    figures = np.concatenate([figures, np.asarray(include, np.float64)])
    pad = 0.06 * (float(np.ptp(figures)) or abs(float(figures[0])) or 1.0)
    axes.set_ylim(figures.min() - pad, figures.max() + pad)
    first, last = min(curve.x[0] for curve in lines), max(curve.x[-1] for curve in lines)
    axes.set_xlim(first, last if last > first else first + 1)


def label_curves(axes: Axes, pen: Pen, values: list[Curve], base: list[Curve]) -> None:
    """Label the lines at their ends while there are few; always the base."""
    ends = [("base", float(base[0].y[-1]), pen.theme.base)] if base else []
    if pen.colours.few:
        ends += [
            (c.label, float(c.y[-1]), pen.colours.of.get(c.label, pen.theme.muted)) for c in values
        ]
        label_ends(axes, ends, pen.layout)
