"""One picture of all images, as training sees them: cropped to their buckets, with what was found.

Images with a finding come first in their part and have an orange frame.
"""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from lora_lab.data.buckets import place
from lora_lab.data.images import placed, upright
from lora_lab.data_report.facts import DataReport, ImageFacts
from lora_lab.images.fonts import Letters

PAPER, INK, MUTED, FLAG, LINE = "#faf9f6", "#1d1f24", "#585d68", "#b8500f", "#d5d1c6"
COLUMNS, CELL, GAP, MARGIN = 8, 176, 16, 32
LINE_HEIGHT = 16
TITLES = {"train": "Training", "reg": "Regularisation", "held_out": "Held out"}
MOST = 240
"""More images than these make a picture that nobody looks at; the page lists all."""


@dataclass(frozen=True)
class _Line:
    text: str
    color: str


def draw_contact_sheet(report: DataReport) -> Image.Image:
    """The contact sheet of a report, RGB."""
    parts = [(part, _chosen(report.of(part))) for part in TITLES]
    parts = [(part, images) for part, images in parts if images]
    heights = [56 + -(-len(images) // COLUMNS) * _row_height(images) for _, images in parts]
    height = 2 * MARGIN + 56 + sum(heights)
    sheet = Image.new("RGB", (2 * MARGIN + COLUMNS * (CELL + GAP) - GAP, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    name = _fitting(Path(report.folder).name or report.folder, 26, sheet.width - 2 * MARGIN)
    Letters(26, bold=True).draw(pen, (MARGIN, MARGIN), name, INK)
    top = MARGIN + 56
    for part, images in parts:
        top = _draw_part(sheet, top, part, images, len(report.of(part)))
    return sheet


def _chosen(images: list[ImageFacts]) -> list[ImageFacts]:
    return sorted(images, key=lambda image: not image.findings)[:MOST]


def _draw_part(
    sheet: Image.Image, top: int, part: str, images: list[ImageFacts], total: int
) -> int:
    """Draw one part and return where the next begins."""
    pen = ImageDraw.Draw(sheet)
    flagged = sum(bool(image.findings) for image in images)
    shown = (
        f"{len(images)} of {total} images"
        if len(images) < total
        else f"{total} image{'s' * (total != 1)}"
    )
    title = f"{TITLES[part]}: {shown}" + (f", {flagged} to look at" if flagged else "")
    pen.line((MARGIN, top, sheet.width - MARGIN, top), LINE)
    Letters(17, bold=True).draw(pen, (MARGIN, top + 14), title, INK)
    top += 56
    row = _row_height(images)
    for index, image in enumerate(images):
        left = MARGIN + index % COLUMNS * (CELL + GAP)
        _draw_cell(sheet, left, top + index // COLUMNS * row, image)
    return top + -(-len(images) // COLUMNS) * row


def _draw_cell(sheet: Image.Image, left: int, top: int, image: ImageFacts) -> None:
    thumbnail = _thumbnail(image)
    x, y = left + (CELL - thumbnail.width) // 2, top + CELL - thumbnail.height
    sheet.paste(thumbnail, (x, y))
    pen = ImageDraw.Draw(sheet)
    edge, color, width = (4, FLAG, 4) if image.findings else (1, LINE, 1)
    frame = (x - edge, y - edge, x + thumbnail.width + edge - 1, y + thumbnail.height + edge - 1)
    pen.rectangle(frame, outline=color, width=width)
    at = top + CELL + 7
    for line in _lines(image):
        Letters(12).draw(pen, (left, at), _fitting(line.text, 12, CELL), line.color)
        at += LINE_HEIGHT


def _row_height(images: list[ImageFacts]) -> int:
    return CELL + max(len(_lines(image)) for image in images) * LINE_HEIGHT + 7 + GAP


def _lines(image: ImageFacts) -> list[_Line]:
    size = f"{image.size[0]}×{image.size[1]}"
    bucket = f"{image.bucket[0]}×{image.bucket[1]}"
    lines = [Path(image.key).name, size if size == bucket else f"{size} → {bucket}"]
    lines.append(f"{image.tokens} token{'s' * (image.tokens != 1)}")
    return [
        _Line(lines[0], INK),
        *(_Line(line, MUTED) for line in lines[1:]),
        *(_Line(finding, FLAG) for finding in image.findings),
    ]


def _thumbnail(image: ImageFacts) -> Image.Image:
    """The image's crop, scaled into its cell."""
    picture = upright(Path(image.path))
    seen = placed(picture, place(*picture.size, image.bucket), False, Image.Resampling.LANCZOS)
    scale = CELL / max(seen.size)
    size = (max(1, round(seen.width * scale)), max(1, round(seen.height * scale)))
    return seen.resize(size, Image.Resampling.LANCZOS)


def _fitting(text: str, size: int, width: int) -> str:
    """The text, cut in its middle if it is wider than a cell."""
    drawn = Letters(size)
    if drawn.width(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        cut = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        if drawn.width(cut) <= width:
            return cut
    return "…"
