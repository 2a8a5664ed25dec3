"""The size and place of everything in a grid of images.

All sizes are pixels of the finished picture. Text grows with the picture, so that it can still be
read when the whole picture is shown `SHOWN_WIDTH` wide.
"""

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageFont

SHOWN_WIDTH = 1200
"""Width of a report on a screen."""
SMALLEST_SHOWN_TEXT = 10
"""Height of the smallest letters when the picture is shown that wide."""
SMALLEST_TEXT = 14
CELL_SIDES = (128, 256)
"""Smaller images are enlarged to the first, larger ones reduced to the second."""
SMALLEST_PICTURE = 720
"""Width that the header needs."""

NOTE = 0.8
TITLE = 1.35

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Cell:
    """An image, or why there is none."""

    image: Image.Image | None
    problem: str = ""


@dataclass(frozen=True)
class Row:
    """The images of one run."""

    label: str
    note: str
    """A second line in smaller letters; may be empty."""
    cells: tuple[Cell, ...]
    is_base: bool = False


@dataclass(frozen=True)
class Column:
    """The head of a column."""

    label: str
    note: str = ""


@dataclass(frozen=True)
class Grid:
    """All that a picture of a grid says."""

    title: str
    facts: tuple[tuple[str, str], ...]
    """(name, text), such as ("Prompt", "a portrait of zqx person"); a line or more each."""
    corner: str
    """What the rows differ in, above their labels."""
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Layout:
    """Where things go."""

    text: int
    """Height of labels; notes are smaller and the title is larger."""
    cell: tuple[int, int]
    gap: int
    left: int
    """Width of the row labels, margin included."""
    top: int
    """Height of header and column labels."""
    width: int
    height: int
    turned: bool
    """Whether column labels stand upright because the columns are narrow."""
    row_tops: tuple[int, ...]
    row_height: int
    """Of the cells, or of the tallest row label if that is more."""


def lay_out(grid: Grid) -> Layout:
    """Find the size of the text and from it the place of everything.

    Text and picture depend on each other: larger letters need a wider label column. A few rounds
    settle it.
    """
    cell = cell_size(grid)
    gap = max(2, cell[0] // 32)
    cells_width = len(grid.columns) * (cell[0] + gap) - gap
    text, left = SMALLEST_TEXT, 0
    for _ in range(4):
        left = 2 * text + _label_width(grid, text)
        width = max(left + cells_width + 2 * text, SMALLEST_PICTURE)
        # Notes are the smallest text: they must not fall below SMALLEST_SHOWN_TEXT when shown.
        needed = SMALLEST_SHOWN_TEXT * max(1.0, width / SHOWN_WIDTH)
        text = max(SMALLEST_TEXT, round(needed / NOTE))
    left = 2 * text + _label_width(grid, text)
    width = max(left + cells_width + 2 * text, SMALLEST_PICTURE)
    turned = _widest_column(grid, text) > cell[0]
    head = _header_height(grid, text, width) + _columns_height(grid, text, turned)
    labels = [len(label_lines(row, text, left)) * line_height(text) for row in grid.rows]
    row_height = max([cell[1], *labels])
    tops = _row_tops(grid, head, row_height, gap, text)
    height = (tops[-1] + row_height if tops else head) + 2 * text
    return Layout(text, cell, gap, left, head, width, height, turned, tops, row_height)


def cell_size(grid: Grid) -> tuple[int, int]:
    """Width and height of a cell: the images' own size times `cell_factor`."""
    images = [cell.image for row in grid.rows for cell in row.cells if cell.image is not None]
    width, height = images[0].size if images else (CELL_SIDES[0], CELL_SIDES[0])
    factor = cell_factor(width, height)
    return max(1, round(width * factor)), max(1, round(height * factor))


def cell_factor(width: int, height: int) -> float:
    """How much larger than an image its cell is.

    Small images are enlarged by a whole factor, until they reach the first of CELL_SIDES; large
    ones are reduced to the second.
    """
    smallest, largest = CELL_SIDES
    longer = max(width, height)
    return largest / longer if longer > largest else -(-smallest // longer)


@cache
def font(size: int, bold: bool = False) -> Font:
    """DejaVu Sans, which matplotlib ships, or Pillow's own font where it is missing."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / name
        if path.is_file():
            return ImageFont.truetype(path, size)
    return ImageFont.load_default(size)


def wrap(text: str, letters: Font, width: float) -> list[str]:
    """Break text into lines that fit; words that are longer than a line are cut."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split():
            longer = f"{line} {word}".strip()
            if letters.getlength(longer) <= width:
                line = longer
                continue
            if line:
                lines.append(line)
            while letters.getlength(word) > width and len(word) > 1:
                fits = next(
                    n
                    for n in range(len(word) - 1, 0, -1)
                    if n == 1 or letters.getlength(word[:n]) <= width
                )
                lines.append(word[:fits])
                word = word[fits:]
            line = word
        lines.append(line)
    return lines


def _label_width(grid: Grid, text: int) -> int:
    """Width of the row labels: as wide as they are, up to 16 letters' heights; then they wrap."""
    widest = font(text, bold=True).getlength(grid.corner)
    for row in grid.rows:
        label = font(text, bold=True).getlength(row.label)
        widest = max(widest, label, font(note_size(text)).getlength(row.note))
    return round(min(widest, 16 * text)) + text // 2


def label_lines(row: Row, text: int, left: int) -> list[tuple[str, bool]]:
    """(line, whether it is part of the note) of a row's label, wrapped to the label column."""
    width = left - 2 * text
    lines = [(line, False) for line in wrap(row.label, font(text, bold=True), width)]
    if row.note:
        lines += [(line, True) for line in wrap(row.note, font(note_size(text)), width)]
    return lines


def note_size(text: int) -> int:
    """Height of the letters of notes beside labels of this height."""
    return round(text * NOTE)


def line_height(text: int) -> int:
    """From one line of text to the next."""
    return round(text * 1.35)


def _widest_column(grid: Grid, text: int) -> float:
    widths = [font(text, bold=True).getlength(column.label) for column in grid.columns]
    widths += [font(note_size(text)).getlength(column.note) for column in grid.columns]
    return max(widths, default=0.0)


def _columns_height(grid: Grid, text: int, turned: bool) -> int:
    if turned:
        return round(_widest_column(grid, text)) + text
    notes = any(column.note for column in grid.columns)
    return line_height(text) + (line_height(note_size(text)) if notes else 0) + text // 2


def header_indent(grid: Grid, text: int) -> float:
    """Where the text of the facts begins, right of their names."""
    letters = font(text, bold=True)
    return max((letters.getlength(f"{name}   ") for name, _ in grid.facts), default=0.0)


def header_lines(grid: Grid, text: int, width: int) -> list[tuple[str, str]]:
    """(name or empty, line of text) for each line below the title."""
    lines = []
    for name, value in grid.facts:
        wrapped = wrap(value, font(text), width - 2 * text - header_indent(grid, text))
        lines += [(name if index == 0 else "", line) for index, line in enumerate(wrapped)]
    return lines


def _header_height(grid: Grid, text: int, width: int) -> int:
    title = wrap(grid.title, font(round(text * TITLE), bold=True), width - 2 * text)
    lines = header_lines(grid, text, width)
    return (
        text + len(title) * line_height(round(text * TITLE)) + len(lines) * line_height(text) + text
    )


def _row_tops(grid: Grid, top: int, height: int, gap: int, text: int) -> tuple[int, ...]:
    """Upper edge of each row's cells; where the base's frame begins or ends, more space is left."""
    tops = []
    before: Row | None = None
    for row in grid.rows:
        if before is not None:
            top += height + gap
            if before.is_base != row.is_base:
                top += text
        elif row.is_base:
            top += text // 2
        tops.append(top)
        before = row
    return tuple(tops)
