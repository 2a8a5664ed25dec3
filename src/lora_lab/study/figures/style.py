"""How every figure looks: colours on light and dark paper, sizes, axes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Theme:
    """Colours for one kind of paper. The series are after Okabe and Ito, without their red."""

    name: str
    paper: str
    ink: str
    muted: str
    grid: str
    base: str
    """The base, and nothing else, is red; it is drawn thicker too, for eyes that see no red."""
    good: str
    """Better than the base."""
    bad: str
    """Worse."""
    series: tuple[str, ...]
    """One colour a value while there are few."""
    scale: tuple[float, float]
    """Part of the viridis map that is legible on this paper."""


@dataclass(frozen=True)
class FigureSize:
    """Size of a figure."""

    name: str
    width: float
    """Inches."""
    columns: int
    """Panels beside each other."""
    panel_height: float
    """Inches a row of panels."""
    dpi: int
    font: float
    """Points."""


LIGHT = Theme(
    name="light",
    paper="#ffffff",
    ink="#1d1f24",
    muted="#6a6f7a",
    grid="#e7e8ec",
    base="#c8102e",
    good="#0a7a57",
    bad="#b04a05",
    series=(
        "#0072b2",
        "#d98c00",
        "#00896b",
        "#a8558f",
        "#3fa3db",
        "#6b4c2a",
        "#4b3a9b",
        "#7d8a00",
    ),
    scale=(0.0, 0.88),
)
DARK = Theme(
    name="dark",
    paper="#191b20",
    ink="#e9eaee",
    muted="#9ba1ad",
    grid="#2c2f37",
    base="#ff5a5f",
    good="#56d3a5",
    bad="#ffb27a",
    series=(
        "#5ab4f0",
        "#f2b134",
        "#35c79b",
        "#e29ac6",
        "#a6d8ff",
        "#c9a27e",
        "#a99cf5",
        "#c6d13b",
    ),
    scale=(0.22, 1.0),
)
WIDE = FigureSize("wide", width=10.0, columns=3, panel_height=3.3, dpi=140, font=10.0)
NARROW = FigureSize("narrow", width=4.6, columns=1, panel_height=2.5, dpi=170, font=9.0)


@contextmanager
def drawing(theme: Theme, layout: FigureSize) -> Iterator[None]:
    """Set matplotlib's defaults for one figure; text is never read as formulas."""
    settings: Any = {
        "font.family": "DejaVu Sans",
        "font.size": layout.font,
        "axes.titlesize": layout.font + 1,
        "axes.labelsize": layout.font,
        "xtick.labelsize": layout.font - 1,
        "ytick.labelsize": layout.font - 1,
        "text.color": theme.ink,
        "text.parse_math": False,
        "axes.facecolor": theme.paper,
        "axes.edgecolor": theme.muted,
        "axes.labelcolor": theme.muted,
        "axes.titlecolor": theme.ink,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "figure.facecolor": theme.paper,
        "lines.solid_capstyle": "round",
        "lines.solid_joinstyle": "round",
        "path.simplify_threshold": 0.5,
        "agg.path.chunksize": 20000,
    }
    with matplotlib.rc_context(settings):
        yield


def new_figure(layout: FigureSize, height: float) -> Figure:
    """An empty figure of the layout's width and ``height`` inches, without pyplot's registry."""
    figure = Figure(figsize=(layout.width, height), dpi=layout.dpi)
    FigureCanvasAgg(figure)
    return figure


def panels(
    layout: FigureSize, count: int, margin: float, row_height: float | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels, as many a row as the layout has columns.

    Args:
        layout: The size.
        count: Panels.
        margin: Inches kept free on the right for labels.
        row_height: Inches a row; the layout's own when None.

    Returns:
        The figure and its panels, row by row.
    """
    columns = min(layout.columns, count)
    rows = -(-count // columns)
    height = rows * (row_height or layout.panel_height) + 0.3
    figure = new_figure(layout, height)
    left, right, gap = 0.78, max(0.2, margin), 0.72  # inches
    width = (layout.width - left - right - gap * (columns - 1)) / columns
    grid = figure.add_gridspec(
        rows,
        columns,
        left=left / layout.width,
        right=1 - right / layout.width,
        top=1 - 0.42 / height,
        bottom=0.55 / height,
        wspace=gap / width,
        hspace=0.42 if rows > 1 else 0,
    )
    axes = [figure.add_subplot(grid[index // columns, index % columns]) for index in range(count)]
    return figure, axes


def tidy(axes: Axes, theme: Theme, title: str, x_label: str) -> None:
    """Title on the left, quiet grid, no box."""
    axes.set_title(title, loc="left", pad=8, fontweight="bold")
    axes.set_xlabel(x_label)
    axes.grid(True, color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=5)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")


def plain_axis(axes: Axes, integers_below: bool = True) -> None:
    """Linear axes with few ticks."""
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=integers_below))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.4g}".replace("-", "−")))


def log_axis(axes: Axes) -> None:
    """A logarithmic vertical axis whose ticks are written as powers of ten."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(10, numticks=7))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(power_of_ten))


def power_of_ten(value: float, _position: int = 0) -> str:
    """0.001 -> 10⁻³; other figures in three digits."""
    if value <= 0:
        return "0"
    exponent = np.log10(value)
    if abs(exponent - round(exponent)) > 1e-6:
        return f"{value:.3g}"
    return "10" + str(round(exponent)).translate(SUPERSCRIPTS)


def nothing_measured(axes: Axes, theme: Theme, text: str = "not measured") -> None:
    """Say in the panel that there is nothing to draw."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=theme.muted)
    axes.set_xticks([])
    axes.set_yticks([])
