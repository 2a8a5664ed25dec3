"""The report's figures, drawn with matplotlib without a display."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from lora_lab.files import atomic_path
from lora_lab.study.figures import cost, dlr, effects, held_out, loss, pareto
from lora_lab.study.figures.curve_axes import Pen, pen_for
from lora_lab.study.figures.style import DARK, LIGHT, NARROW, WIDE, FigureSize, Theme, drawing
from lora_lab.study.judge.verdict import Study

DRAW: dict[str, Callable[[Pen], Figure]] = {
    "effects": effects.draw,
    "pareto": pareto.draw,
    "dlr": dlr.draw,
    "loss": loss.draw_loss,
    "loss_paired": loss.draw_paired,
    "val_loss": held_out.draw,
    "cost": cost.draw,
}


@dataclass(frozen=True)
class Picture:
    """One figure for one kind of paper and page."""

    png: bytes
    width: int
    """Pixels."""
    height: int


@dataclass(frozen=True)
class FigureSet:
    """One figure in all its forms."""

    name: str
    light: Picture
    dark: Picture
    light_narrow: Picture
    dark_narrow: Picture


def draw_figures(study: Study, names: Sequence[str], folder: Path) -> list[FigureSet]:
    """Draw every figure and write <name>.png of each, on light paper, into the report folder.

    Args:
        study: The judged sweep.
        names: Of the figures that have something to show.
        folder: The report folder.

    Returns:
        The figures in all forms that the page embeds, in the order of their names.

    Raises:
        LabError: A file can't be written.
    """
    figures = []
    for name in (name for name in names if name in DRAW):
        light = render(study, name, LIGHT, WIDE)
        with atomic_path(folder / f"{name}.png") as path:
            path.write_bytes(light.png)
        dark = render(study, name, DARK, WIDE)
        light_narrow = render(study, name, LIGHT, NARROW)
        dark_narrow = render(study, name, DARK, NARROW)
        figures.append(FigureSet(name, light, dark, light_narrow, dark_narrow))
    return figures


def render(study: Study, name: str, theme: Theme, layout: FigureSize) -> Picture:
    """Draw one figure in one form."""
    with drawing(theme, layout), warnings.catch_warnings():
        # A label may hold a sign that the font lacks: it is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = DRAW[name](pen_for(study, theme, layout))
        buffer = BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    width, height = (round(inches * layout.dpi) for inches in figure.get_size_inches())
    return Picture(buffer.getvalue(), width, height)
