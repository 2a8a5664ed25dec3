"""Pictures inside the page, within the bytes that a page may have."""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from lora_lab.files import read_bytes
from lora_lab.images.opening import open_picture

MAX_PAGE_BYTES = 15_000_000
"""Bytes of the whole page, so that it can be sent and opened anywhere."""
TEXT_SHARE = 1_500_000
"""Bytes kept free for all that is no picture: a row of the table takes about 2,000."""
MAX_SIDE = 16_000
"""Pixels; WebP ends at 16,383."""
MAX_BYTES = 2**28
"""Of a picture's file."""
MAX_PIXELS = 250_000_000
QUALITIES = (90, 75, 60)
SCALES = (1.0, 0.7, 0.5, 0.35, 0.25)


@dataclass(frozen=True)
class Embedded:
    """A picture as a data address."""

    address: str
    width: int
    """Pixels of the picture that is embedded."""
    height: int
    reduced: bool = False
    """Whether the file holds more pixels than this."""


def embed_png(png: bytes, width: int, height: int) -> Embedded:
    """Embeds a drawn figure as it is."""
    return Embedded(_address("png", png), width, height)


def embed_file(path: Path, budget: int, width: int = MAX_SIDE) -> Embedded:
    """Embeds a picture from a file within a budget.

    Args:
        path: the picture.
        budget: bytes that the address may have. The file itself is taken when it fits, otherwise
            WebP of falling quality and size.
        width: pixels that the embedded picture has at most from left to right.

    Raises:
        ValueError: the file is not a picture that can be read, or has too many pixels.
    """
    try:
        with open_picture(path) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ValueError(f"{opened.width} × {opened.height} pixels are too many")
            kind = opened.format
            picture = opened.convert("RGB")
        original = read_bytes(path, MAX_BYTES)
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"it can't be read as a picture ({error})") from error
    if kind == "PNG" and _text_size(original) <= budget and picture.width <= width:
        return Embedded(_address("png", original), picture.width, picture.height)
    reduced, data = _shrink(_scaled(picture, width / picture.width), budget)
    return Embedded(
        _address("webp", data), reduced.width, reduced.height, reduced.width < picture.width
    )


def _shrink(picture: Image.Image, budget: int) -> tuple[Image.Image, bytes]:
    """The best WebP within the budget; the smallest there is when none fits."""
    for scale in SCALES:
        reduced = _scaled(picture, scale)
        for quality in QUALITIES:
            buffer = io.BytesIO()
            reduced.save(buffer, "WEBP", quality=quality, method=3)
            if _text_size(buffer.getvalue()) <= budget:
                return reduced, buffer.getvalue()
    return reduced, buffer.getvalue()


def _scaled(picture: Image.Image, scale: float) -> Image.Image:
    scale = min(scale, MAX_SIDE / max(picture.size))
    if scale >= 1:
        return picture
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _text_size(data: bytes) -> int:
    return len(data) * 4 // 3 + 4


def _address(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
