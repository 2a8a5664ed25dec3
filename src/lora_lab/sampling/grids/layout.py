"""The size and place of everything in a picture of a grid, and what goes to another page.

Letters have one size in every picture, whatever the number of columns: a picture is at most so wide
that they can be read where it is shown in half its pixels. All sizes are pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lora_lab.config.sampling import PictureConfig
from lora_lab.images.fonts import Letters
from lora_lab.sampling.grids.grid import Grid, GridColumn, GridRow

LABEL = Letters(22, bold=True)
TEXT = Letters(22)
NOTE = Letters(18)
TITLE = Letters(30, bold=True)
MARGIN = 28
GAP = 8
WIDEST_LABEL = 300
NARROWEST_PICTURE = 720
"""What the header needs."""
SMALL_IMAGE = 128
"""Images up to this side are enlarged, by a whole factor."""
COMFORT = 1500
"""Small images are enlarged as long as a picture stays this narrow."""
LARGEST_CELL = 384
SMALLEST_CELL = 192
LABEL_LINES = 4
FACT_LINES = 12


@dataclass(frozen=True)
class GridLayout:
    """Where things go."""

    cell: tuple[int, int]
    left: int
    """Where the first column begins."""
    width: int
    height: int
    header_bottom: int
    columns_bottom: int
    """Where the heads of the columns end."""
    column_lefts: tuple[int, ...]
    row_tops: tuple[int, ...]
    row_height: int
    """Of an image with its score, or of the tallest row label if that is more."""


def cell_size(grid: Grid, columns: int, config: PictureConfig) -> tuple[int, int]:
    """Width and height of an image in a grid of so many columns."""
    width, height = grid.image_size
    longer = max(width, height)
    if config.cell is not None:
        factor = config.cell / longer
    elif longer <= SMALL_IMAGE:
        room = (COMFORT - label_width(grid) - 2 * MARGIN) / columns - GAP
        factor = max(1, math.ceil(96 / longer), min(256 // longer, int(room / width)))
    else:
        room = (config.max_width - label_width(grid) - 2 * MARGIN) / columns - GAP
        side = min(max(room * longer / width, SMALLEST_CELL), LARGEST_CELL, longer)
        factor = int(side) / longer
    return max(1, round(width * factor)), max(1, round(height * factor))


def pages(grid: Grid, config: PictureConfig) -> list[Grid]:
    """The grid in parts that are within the largest picture, each with all of its header."""
    narrow = cell_size(grid, len(grid.columns), config)
    room = config.max_width - label_width(grid) - 2 * MARGIN - _frame_room(grid.columns)
    across = _balanced(len(grid.columns), max(1, int((room + GAP) / (narrow[0] + GAP))), ())
    first = grid.part(range(len(grid.rows)), across[0], "")
    plan = lay_out(first, config)
    used = plan.columns_bottom + MARGIN + _frame_room(grid.rows)
    fit = max(1, int((config.max_height - used) / (plan.row_height + GAP)))
    base = tuple(i for i, row in enumerate(grid.rows) if row.is_base)
    down = _balanced(len(grid.rows), fit, base)
    parts = [(rows, columns) for rows in down for columns in across]
    names = [
        f"page {n} of {len(parts)}" if len(parts) > 1 else "" for n in range(1, len(parts) + 1)
    ]
    return [grid.part(*part, name) for part, name in zip(parts, names, strict=True)]


def _balanced(count: int, most: int, together: Sequence[int]) -> list[range]:
    """Ranges of nearly equal length; none ends inside of what should stay together."""
    parts = math.ceil(count / most)
    edges = [count * part // parts for part in range(parts + 1)]
    inside = set(together[1:]) if 0 < len(together) <= most else set()
    for index in range(1, parts):
        while edges[index] in inside:
            edges[index] -= 1
    return [range(a, b) for a, b in pairwise(edges) if b > a]


def lay_out(grid: Grid, config: PictureConfig) -> GridLayout:
    """Find the place of everything on one page."""
    cell = cell_size(grid, len(grid.columns), config)
    left = MARGIN + label_width(grid)
    lefts = _starts(grid.columns, left, cell[0])
    right = (lefts[-1] + cell[0] if lefts else left) + GAP * bool(_is_framed(grid.columns))
    width = max(right + MARGIN, NARROWEST_PICTURE)
    header = header_height(grid, width)
    heads = max((head_height(column, cell[0]) for column in grid.columns), default=0)
    top = header + max(heads, LABEL.line) + GAP
    labels = [label_height(row, left - MARGIN - 2 * GAP) for row in grid.rows]
    scores = NOTE.line if any(c.score for row in grid.rows for c in row.cells) else 0
    row_height = max([cell[1] + scores, *labels])
    tops = _starts(grid.rows, top, row_height)
    bottom = (tops[-1] + row_height if tops else top) + GAP * bool(_is_framed(grid.rows))
    return GridLayout(cell, left, width, bottom + MARGIN, header, top, lefts, tops, row_height)


def _is_framed(heads: Sequence[GridRow] | Sequence[GridColumn]) -> bool:
    return any(head.is_base for head in heads)


def _frame_room(heads: Sequence[GridRow] | Sequence[GridColumn]) -> int:
    return 6 * GAP if _is_framed(heads) else 0


def _starts(
    heads: Sequence[GridRow] | Sequence[GridColumn], start: int, size: int
) -> tuple[int, ...]:
    """Where each row or column begins; more space where the base's frame begins or ends."""
    starts: list[int] = []
    before: GridRow | GridColumn | None = None
    for head in heads:
        if before is not None:
            start += size + GAP + (2 * GAP if before.is_base != head.is_base else 0)
        elif head.is_base:
            start += GAP
        starts.append(start)
        before = head
    return tuple(starts)


def label_width(grid: Grid) -> int:
    """Width of the row labels with the space behind them: as they need, up to WIDEST_LABEL."""
    widest = LABEL.width(grid.corner)
    for row in grid.rows:
        widest = max(widest, LABEL.width(row.label), NOTE.width(row.note))
    return round(min(widest, WIDEST_LABEL)) + 3 * GAP if widest else GAP


def label_lines(row: GridRow, width: float) -> list[tuple[Letters, str]]:
    """The lines of a row's label."""
    lines = [(LABEL, line) for line in LABEL.wrap(row.label, width, LABEL_LINES) if row.label]
    return lines + [(NOTE, line) for line in NOTE.wrap(row.note, width, 2) if row.note]


def label_height(row: GridRow, width: float) -> int:
    """Height of a row's label."""
    return sum(letters.line for letters, _ in label_lines(row, width))


def head_lines(column: GridColumn, width: float) -> list[tuple[Letters, str]]:
    """The lines of a column's head."""
    room = width - GAP
    lines = [(LABEL, line) for line in LABEL.wrap(column.label, room, LABEL_LINES) if column.label]
    return lines + [(NOTE, line) for line in NOTE.wrap(column.note, room, 2) if column.note]


def head_height(column: GridColumn, width: float) -> int:
    """Height of a column's head."""
    return sum(letters.line for letters, _ in head_lines(column, width))


def header_indent(grid: Grid) -> int:
    """Where the text of the facts begins, right of their names."""
    return round(max((LABEL.width(f"{name}  ") for name, _ in grid.facts), default=0.0))


def header_lines(grid: Grid, width: int) -> list[tuple[str, str]]:
    """(name or empty, line of text) for each line below the title."""
    room = width - 2 * MARGIN - header_indent(grid)
    lines = []
    for name, value in grid.facts:
        wrapped = TEXT.wrap(value, room, FACT_LINES)
        lines += [(name if index == 0 else "", line) for index, line in enumerate(wrapped)]
    return lines


def header_height(grid: Grid, width: int) -> int:
    """Where the header ends, the space below it included."""
    title = TITLE.wrap(grid.title, width - 2 * MARGIN, 3)
    lines = len(header_lines(grid, width))
    return MARGIN // 2 + len(title) * TITLE.line + GAP + lines * TEXT.line + TEXT.line
