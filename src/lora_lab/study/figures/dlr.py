"""dlr.png: the learning rate at work, d · lr, of UNet and text encoder, and d itself."""

import numpy as np
from matplotlib.figure import Figure

from lora_lab.study.figures.colours import draw_scale, label_margin
from lora_lab.study.figures.curve_axes import Curve, Pen, column, curves, draw_curves, label_curves
from lora_lab.study.figures.style import log_axis, nothing_measured, panels, tidy
from lora_lab.study.judge.run_measures import DLR_TEXT, DLR_UNET, D

DECADES = 6
"""A schedule ends at zero, which no logarithmic axis holds: so far below the peak it is cut."""
PANELS = (
    (DLR_UNET, "DLR of the UNet (d · lr)"),
    (DLR_TEXT, "DLR of the text encoder"),
    (D, "d"),
)


def draw(pen: Pen) -> Figure:
    """Draw the three rates over the steps on logarithmic axes."""
    labels = ["base", *(one.label for one in pen.values)]
    margin = label_margin(labels, pen.colours, pen.layout)
    figure, axes_list = panels(pen.layout, len(PANELS), margin)
    for axes, (name, title) in zip(axes_list, PANELS, strict=True):
        values = _positive(curves(pen.values, column(name)))
        base = _positive(curves(pen.base, column(name)))
        tidy(axes, pen.theme, title, "step")
        if not values and not base:
            nothing_measured(axes, pen.theme)
            continue
        draw_curves(axes, pen, values, base)
        log_axis(axes)
        figures = np.concatenate([curve.y for curve in [*values, *base]])
        peak = float(figures.max())
        axes.set_ylim(max(float(figures.min()), peak / 10**DECADES) * 0.6, peak * 1.8)
        axes.set_xlim(1, max(float(curve.x[-1]) for curve in [*values, *base]) + 1e-9)
        last_of_row = pen.layout.columns == 1 or axes is axes_list[-1]
        if last_of_row:
            label_curves(axes, pen, values, base)
    if not pen.colours.few:
        draw_scale(figure, pen.colours, pen.layout, margin, pen.study.sweep.parameter)
    return figure


def _positive(lines: list[Curve]) -> list[Curve]:
    kept = [Curve(c.label, c.x[c.y > 0], c.y[c.y > 0]) for c in lines]
    return [curve for curve in kept if len(curve.x)]
