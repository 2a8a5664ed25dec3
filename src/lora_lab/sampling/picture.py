"""Grids of images: a row a value, a column a saved LoRA or a prompt; the base in a red frame."""

from PIL import Image, ImageDraw, ImageFont

from lora_lab.sampling.layout import (
    TITLE,
    Cell,
    Font,
    Grid,
    Layout,
    Row,
    font,
    header_indent,
    header_lines,
    label_lines,
    lay_out,
    line_height,
    note_size,
    wrap,
)

PAPER = "#ffffff"
INK = "#1b1b1f"
FAINT_INK = "#5f6068"
EMPTY_CELL = "#ececef"
BASE_RED = "#d4151f"


def draw_grid(grid: Grid) -> Image.Image:
    """Draw a grid with its header.

    Rows of the base must stand together; they get one red frame.
    """
    layout = lay_out(grid)
    picture = Image.new("RGB", (layout.width, layout.height), PAPER)
    draw = ImageDraw.Draw(picture)
    _draw_header(draw, grid, layout)
    _draw_columns(picture, grid, layout)
    for row, top in zip(grid.rows, layout.row_tops, strict=True):
        _draw_row_label(draw, row, top, layout)
        for index, cell in enumerate(row.cells):
            left = layout.left + index * (layout.cell[0] + layout.gap)
            _draw_cell(picture, cell, left, top + (layout.row_height - layout.cell[1]) // 2, layout)
    _draw_frame(draw, grid, layout)
    return picture


def _draw_header(draw: ImageDraw.ImageDraw, grid: Grid, layout: Layout) -> None:
    text = layout.text
    top = text
    letters = font(round(text * TITLE), bold=True)
    for line in wrap(grid.title, letters, layout.width - 2 * text):
        draw.text((text, top), line, fill=INK, font=letters)
        top += line_height(round(text * TITLE))
    indent = header_indent(grid, text)
    for name, line in header_lines(grid, text, layout.width):
        draw.text((text, top), name, fill=FAINT_INK, font=font(text, bold=True))
        draw.text((text + indent, top), line, fill=INK, font=font(text))
        top += line_height(text)


def _draw_columns(picture: Image.Image, grid: Grid, layout: Layout) -> None:
    text, draw = layout.text, ImageDraw.Draw(picture)
    bottom = layout.top - text // 3
    draw.text((text, bottom), grid.corner, fill=INK, font=font(text, bold=True), anchor="ls")
    for index, column in enumerate(grid.columns):
        middle = layout.left + index * (layout.cell[0] + layout.gap) + layout.cell[0] // 2
        if layout.turned:
            label = _upright(column.label, font(text, bold=True), INK)
            picture.paste(label, (middle - label.width // 2, bottom - label.height))
            continue
        place = bottom
        if column.note:
            letters = font(note_size(text))
            draw.text((middle, place), column.note, fill=FAINT_INK, font=letters, anchor="ms")
            place -= line_height(note_size(text))
        letters = font(text, bold=True)
        draw.text((middle, place), column.label, fill=INK, font=letters, anchor="ms")


def _upright(text: str, letters: Font, ink: str) -> Image.Image:
    """A picture of text that reads from bottom to top."""
    left, top, right, bottom = letters.getbbox(text)
    strip = Image.new("RGB", (max(1, round(right - left)), max(1, round(bottom - top))), PAPER)
    ImageDraw.Draw(strip).text((-left, -top), text, fill=ink, font=letters)
    return strip.transpose(Image.Transpose.ROTATE_90)


def _draw_row_label(draw: ImageDraw.ImageDraw, row: Row, top: int, layout: Layout) -> None:
    text = layout.text
    ink = BASE_RED if row.is_base else INK
    lines = label_lines(row, text, layout.left)
    place = top + (layout.row_height - len(lines) * line_height(text)) // 2
    for line, is_note in lines:
        letters = font(note_size(text)) if is_note else font(text, bold=True)
        draw.text((text, place), line, fill=FAINT_INK if is_note else ink, font=letters)
        place += line_height(text)


def _draw_cell(picture: Image.Image, cell: Cell, left: int, top: int, layout: Layout) -> None:
    if cell.image is not None:
        picture.paste(enlarge(cell.image.convert("RGB"), layout.cell), (left, top))
        return
    draw = ImageDraw.Draw(picture)
    width, height = layout.cell
    draw.rectangle((left, top, left + width - 1, top + height - 1), fill=EMPTY_CELL)
    letters = font(max(11, min(note_size(layout.text), width // 9)))
    step = round(letters.size * 1.25) if isinstance(letters, ImageFont.FreeTypeFont) else 14
    lines = wrap(cell.problem, letters, width - 12)[: max(1, (height - 12) // step)]
    place = top + (height - len(lines) * step) // 2
    for line in lines:
        draw.text((left + width // 2, place), line, fill=FAINT_INK, font=letters, anchor="ma")
        place += step


def enlarge(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An image in another size, by Lanczos' filter."""
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _draw_frame(draw: ImageDraw.ImageDraw, grid: Grid, layout: Layout) -> None:
    tops = [top for row, top in zip(grid.rows, layout.row_tops, strict=True) if row.is_base]
    if not tops:
        return
    stroke = max(3, layout.text // 5)
    margin = layout.text // 2
    right = layout.left + len(grid.columns) * (layout.cell[0] + layout.gap) - layout.gap
    box = (
        layout.text // 2,
        tops[0] - margin,
        right + margin,
        tops[-1] + layout.row_height + margin,
    )
    draw.rectangle(box, outline=BASE_RED, width=stroke)
