"""Draws a grid of images: header, labels, cells, and a red frame around the base."""

from pathlib import Path

from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from lora_lab.config.sampling import PictureConfig
from lora_lab.files import atomic_path
from lora_lab.images.fonts import Letters
from lora_lab.images.opening import open_picture
from lora_lab.sampling.grids.grid import Grid, GridCell, GridColumn, GridRow
from lora_lab.sampling.grids.layout import (
    GAP,
    LABEL,
    MARGIN,
    NOTE,
    TEXT,
    TITLE,
    GridLayout,
    head_lines,
    header_indent,
    header_lines,
    label_height,
    label_lines,
    lay_out,
)

PAPER = "#ffffff"
INK = "#1b1b1f"
FAINT_INK = "#5f6068"
EMPTY_CELL = "#f1eff2"
EMPTY_EDGE = "#d5d2d8"
BASE_RED = "#d4151f"
FRAME = 4
KEY = "lora_lab_grid"
WEBP_QUALITY = 88
_SMALLEST_NOTE = Letters(14)


def draw_grid(grid: Grid, config: PictureConfig) -> Image.Image:
    """Draw one page; rows or columns of the base must stand together, they get one red frame."""
    layout = lay_out(grid, config)
    picture = Image.new("RGB", (layout.width, layout.height), PAPER)
    draw = ImageDraw.Draw(picture)
    _draw_header(draw, grid, layout)
    _draw_heads(draw, grid, layout)
    for row, top in zip(grid.rows, layout.row_tops, strict=True):
        _draw_row_label(draw, row, top, layout)
        for cell, left in zip(row.cells, layout.column_lefts, strict=True):
            _draw_cell(picture, cell, left, top, layout)
    _draw_frames(draw, grid, layout)
    return picture


def _draw_header(draw: ImageDraw.ImageDraw, grid: Grid, layout: GridLayout) -> None:
    top = MARGIN // 2
    for line in TITLE.wrap(grid.title, layout.width - 2 * MARGIN, 3):
        TITLE.draw(draw, (MARGIN, top), line, INK)
        top += TITLE.line
    top += GAP
    indent = header_indent(grid)
    for name, line in header_lines(grid, layout.width):
        LABEL.draw(draw, (MARGIN, top), name, FAINT_INK)
        TEXT.draw(draw, (MARGIN + indent, top), line, INK)
        top += TEXT.line


def _draw_heads(draw: ImageDraw.ImageDraw, grid: Grid, layout: GridLayout) -> None:
    corner = LABEL.wrap(grid.corner, layout.left - MARGIN, 2)
    for number, line in enumerate(reversed(corner), 1):
        place = layout.columns_bottom - GAP - number * LABEL.line
        LABEL.draw(draw, (MARGIN, place), line, FAINT_INK)
    width = layout.cell[0]
    for column, left in zip(grid.columns, layout.column_lefts, strict=True):
        lines = head_lines(column, width)
        top = layout.columns_bottom - GAP - sum(letters.line for letters, _ in lines)
        for letters, line in lines:
            ink = _label_ink(column, letters)
            start = left + (width - letters.width(line)) / 2
            letters.draw(draw, (start, top), line, ink)
            top += letters.line


def _draw_row_label(draw: ImageDraw.ImageDraw, row: GridRow, top: int, layout: GridLayout) -> None:
    width = layout.left - MARGIN - 2 * GAP
    place = top + (layout.row_height - label_height(row, width)) // 2
    for letters, line in label_lines(row, width):
        letters.draw(draw, (MARGIN, place), line, _label_ink(row, letters))
        place += letters.line


def _label_ink(head: GridRow | GridColumn, letters: Letters) -> str:
    if letters is NOTE:
        return FAINT_INK
    return BASE_RED if head.is_base else INK


def _draw_cell(
    picture: Image.Image, cell: GridCell, left: int, top: int, layout: GridLayout
) -> None:
    width, height = layout.cell
    draw = ImageDraw.Draw(picture)
    image = open_image(cell.path)
    if image is not None:
        picture.paste(resized(image, layout.cell), (left, top))
    else:
        problem = cell.problem if cell.path is None else f"{cell.path.name} can't be read"
        box = (left, top, left + width - 1, top + height - 1)
        draw.rectangle(box, fill=EMPTY_CELL, outline=EMPTY_EDGE)
        _draw_problem(draw, problem, left, top, layout)
    if cell.score:
        place = left + (width - NOTE.width(cell.score)) / 2
        NOTE.draw(draw, (place, top + height + 1), cell.score, INK)


def _draw_problem(
    draw: ImageDraw.ImageDraw, problem: str, left: int, top: int, layout: GridLayout
) -> None:
    width, height = layout.cell
    letters = NOTE if width >= 160 else _SMALLEST_NOTE
    most = max(1, (height - GAP) // letters.line)
    lines = letters.wrap(problem, width - 2 * GAP, most)
    place = top + (height - len(lines) * letters.line) // 2
    for line in lines:
        start = left + (width - letters.width(line)) / 2
        letters.draw(draw, (start, place), line, FAINT_INK)
        place += letters.line


def open_image(path: Path | None) -> Image.Image | None:
    """The image of a file; None where there is none that can be read."""
    if path is None:
        return None
    try:
        with open_picture(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return None


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An image in another size: Lanczos' filter, smooth both ways."""
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _draw_frames(draw: ImageDraw.ImageDraw, grid: Grid, layout: GridLayout) -> None:
    """A red frame around all rows, or all columns, of the base."""
    reach = GAP + FRAME // 2
    width, height = layout.cell[0], layout.row_height
    lefts, tops = layout.column_lefts, layout.row_tops
    rows = [top for row, top in zip(grid.rows, tops, strict=True) if row.is_base]
    if rows:
        left, right = MARGIN - reach, lefts[-1] + width + reach
        box = (left, rows[0] - reach, right, rows[-1] + height + reach)
        draw.rectangle(box, outline=BASE_RED, width=FRAME)
    columns = [left for head, left in zip(grid.columns, lefts, strict=True) if head.is_base]
    if columns:
        bottom = tops[-1] + height + reach
        box = (columns[0] - reach, tops[0] - reach, columns[-1] + width + reach, bottom)
        draw.rectangle(box, outline=BASE_RED, width=FRAME)


def write_grid(path: Path, grid: Grid, config: PictureConfig) -> bool:
    """Draw a page into a PNG, and a WebP if the config asks for it, unless they are there.

    Returns:
        Whether it was drawn.

    Raises:
        LabError: A file can't be written.
    """
    key = grid.key()
    others = [path.with_suffix(".webp")] if "webp" in config.formats else []
    if grid_key(path) == key and all(other.is_file() for other in others):
        return False
    picture = draw_grid(grid, config)
    info = PngInfo()
    info.add_text(KEY, key)
    for other in others:
        with atomic_path(other) as temporary:
            picture.save(temporary, format="WEBP", quality=WEBP_QUALITY, method=4)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=info)
    return True


def grid_key(path: Path) -> str | None:
    """The key of the grid that a file shows; None if it is missing or not ours."""
    try:
        with open_picture(path) as image:
            key = image.info.get(KEY)
    except (OSError, ValueError, SyntaxError):
        return None
    return key if isinstance(key, str) else None
