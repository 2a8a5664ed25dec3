"""Which colour a value has, the same in every figure, and the key that says so."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, LogNorm, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from lora_lab.study.figures.style import FigureSize, Theme

FEW = 8
"""Up to so many values get colours of their own and labels at their lines."""
MAX_TICKS = 9
WIDE_RANGE = 20.0
"""Values that span more than this factor are spread logarithmically."""
MAX_LABEL = 18
MAX_SCALE = 3.4
"""Inches that the scale of many values is long."""


@dataclass(frozen=True)
class Colours:
    """Colours of the values of one study."""

    of: dict[str, str]
    """Value -> colour."""
    few: bool
    """Whether lines are labelled one by one; otherwise a scale stands beside the figure."""
    colormap: Colormap | None = None
    norm: Normalize | None = None
    ticks: tuple[tuple[float, str], ...] = ()
    """Positions on the scale with the values that stand there."""


def colours_of(values: Sequence[str], theme: Theme) -> Colours:
    """Give every value a colour.

    Up to eight values get distinct colours. More get a sequential scale: by size when all of
    them are numbers, by order otherwise.

    Args:
        values: The values as written, in the study's order.
        theme: The paper that they are drawn on.
    """
    unique = list(dict.fromkeys(values))
    if len(unique) <= FEW:
        return Colours(dict(zip(unique, theme.series, strict=False)), few=True)
    low, high = theme.scale
    shades = [matplotlib.colormaps["viridis"](low + (high - low) * i / 63) for i in range(64)]
    colormap = LinearSegmentedColormap.from_list("values", shades)
    positions = _positions(unique)
    spread = min(positions) > 0 and max(positions) / min(positions) > WIDE_RANGE
    norm = (LogNorm if spread else Normalize)(min(positions), max(positions))
    colours = {v: to_hex(colormap(norm(p))) for v, p in zip(unique, positions, strict=True)}
    ordered = sorted(zip(positions, unique, strict=True))
    picked = _spread_out([(float(norm(p)), p, v) for p, v in ordered])
    return Colours(colours, False, colormap, norm, tuple((p, shorten(v)) for p, v in picked))


def shorten(text: str, length: int = MAX_LABEL) -> str:
    """A label of at most ``length`` characters, one line."""
    text = "".join(c if c.isprintable() else "�" for c in text)
    return text if len(text) <= length else text[: length - 1] + "…"


def label_margin(labels: Sequence[str], colours: Colours, layout: FigureSize) -> float:
    """Inches to keep free on the right for the labels or the scale."""
    shown = labels if colours.few else [text for _, text in colours.ticks]
    longest = max((len(shorten(label)) for label in shown), default=0)
    return 0.42 + longest * layout.font * 0.72 / 72 + (0.0 if colours.few else 0.25)


def draw_scale(
    figure: Figure, colours: Colours, layout: FigureSize, margin: float, title: str
) -> None:
    """Draw the colour scale of many values into the right margin."""
    height = figure.get_figheight()
    length = min(MAX_SCALE, height - 1.25)
    left, bottom = 1 - (margin - 0.16) / layout.width, 1 - (length + 0.63) / height
    axes = figure.add_axes((left, bottom, 0.13 / layout.width, length / height))
    mappable = ScalarMappable(norm=colours.norm, cmap=colours.colormap)
    bar = figure.colorbar(mappable, cax=axes)
    bar.outline.set_visible(False)
    axes.yaxis.set_major_locator(FixedLocator([p for p, _ in colours.ticks]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FixedFormatter([text for _, text in colours.ticks]))
    axes.tick_params(length=0, pad=4)
    axes.set_title(shorten(title), loc="left", fontsize=layout.font - 1, pad=6)


def label_ends(axes: Axes, ends: Sequence[tuple[str, float, str]], layout: FigureSize) -> None:
    """Write each line's label beside its end, pushed apart where ends lie close together.

    Args:
        axes: The panel, with its final limits.
        ends: Label, last figure in data units, colour, of each line.
        layout: Gives the size of the text.
    """
    to_share = axes.transData + axes.transAxes.inverted()
    placed = sorted(
        (min(1.0, max(0.0, to_share.transform((axes.get_xlim()[1], y))[1])), label, colour)
        for label, y, colour in ends
        if math.isfinite(y)
    )
    height = axes.get_window_extent().height / axes.figure.dpi * 72  # points
    gap = layout.font * 1.25 / max(height, 1.0)
    spots = spread_apart([share for share, _, _ in placed], gap)
    for (share, label, colour), spot in zip(placed, spots, strict=True):
        axes.plot(
            [1.005, 1.025],
            [share, spot],
            transform=axes.transAxes,
            color=colour,
            linewidth=1,
            clip_on=False,
        )
        axes.text(
            1.035,
            spot,
            shorten(label),
            transform=axes.transAxes,
            color=colour,
            va="center",
            ha="left",
            fontweight="bold",
        )


def spread_apart(positions: Sequence[float], gap: float) -> list[float]:
    """Move ascending positions in 0..1 until neighbours are at least ``gap`` apart."""
    spots: list[float] = []
    for position in positions:
        spots.append(max(position, spots[-1] + gap) if spots else position)
    limit = max(1.0, (len(spots) - 1) * gap)
    for index in range(len(spots) - 1, -1, -1):
        spots[index] = min(spots[index], limit)
        limit = spots[index] - gap
    return spots


def _positions(values: Sequence[str]) -> list[float]:
    """Where each value stands on the scale: its size, or its rank when not all are numbers."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = []
    if numbers and all(math.isfinite(number) for number in numbers):
        return numbers
    return [float(rank) for rank in range(len(values))]


def _spread_out(places: list[tuple[float, float, str]]) -> list[tuple[float, str]]:
    """At most MAX_TICKS of (share, position, value) that stand well apart on the scale."""
    picked = [places[0]]
    for place in places[1:-1]:
        if place[0] - picked[-1][0] >= 1 / MAX_TICKS and 1 - place[0] >= 1 / MAX_TICKS:
            picked.append(place)
    return [(position, value) for _, position, value in [*picked, places[-1]]]
