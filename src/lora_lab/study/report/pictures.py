"""Pictures inside the page, within the bytes that a page may have.

A figure or a grid is embedded by itself; of many images there are thumbnails, of the largest size
at which all of them fit.
"""

import base64
import io
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from lora_lab.files import read_bytes
from lora_lab.images.opening import open_picture

log = logging.getLogger(__name__)
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
THUMBNAIL_SIDES = (512, 384, 256, 192, 160, 128, 96, 64, 48)
"""Pixels of the longer side."""
THUMBNAIL_QUALITY, FINE_QUALITY = 82, 95
FINE_SIDE = 128
"""Pictures that are so small in full size are shown enlarged, which shows every trace of coding."""
SAMPLE = 24
"""So many images tell how many bytes one takes."""
SAFETY = 1.08
"""The sample may hold the simpler images."""
OVERHEAD = 140
"""Bytes an image takes in the page beside its picture: its address and its place."""
THREADS = 2


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
    """Embed a drawn figure as it is."""
    return Embedded(_address("png", png), width, height)


def embed_file(path: Path, budget: int, width: int = MAX_SIDE) -> Embedded:
    """Embed a picture from a file within a budget.

    Args:
        path: The picture.
        budget: Bytes that the address may have. The file itself is taken when it fits, otherwise
            WebP of falling quality and size.
        width: Pixels that the embedded picture has at most from left to right.

    Raises:
        ValueError: The file is not a picture that can be read, or has too many pixels.
    """
    picture, kind = _opened(path)
    try:
        original = read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise ValueError(f"it can't be read ({error})") from error
    if kind == "PNG" and _text_size(original) <= budget and picture.width <= width:
        return Embedded(_address("png", original), picture.width, picture.height)
    reduced, data = _shrink(_scaled(picture, width / picture.width), budget)
    return Embedded(
        _address("webp", data), reduced.width, reduced.height, reduced.width < picture.width
    )


def make_thumbnails(paths: Sequence[Path], budget: int) -> dict[Path, str | None]:
    """Make thumbnails of all images, as large as the budget allows.

    Args:
        paths: The images, the most important first: what the budget can't hold even at the
            smallest size is left out from the end.
        budget: Bytes of text that all of them may take.

    Returns:
        Image -> base64 text of a WebP file, None for one that can't be read; without the images
        that are left out.
    """
    room = budget - OVERHEAD * len(paths)
    side = _thumbnail_side(paths, room)
    log.info("%d images, thumbnails of at most %d pixels", len(paths), side)
    found: dict[Path, str | None] = {}
    used = 0
    with ThreadPoolExecutor(THREADS) as pool:
        made = pool.map(partial(_thumbnail, side=side), paths)
        for path, thumbnail in zip(paths, made, strict=True):
            used += len(thumbnail) if thumbnail else 0
            if used > room:
                break
            found[path] = thumbnail
    return found


def _thumbnail(path: Path, side: int) -> str | None:
    """One thumbnail whose longer side has at most ``side`` pixels; None for no picture."""
    try:
        picture, _ = _opened(path)
    except ValueError:
        return None
    quality = FINE_QUALITY if max(picture.size) <= min(side, FINE_SIDE) else THUMBNAIL_QUALITY
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=2)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _thumbnail_side(paths: Sequence[Path], room: int) -> int:
    """The largest side at which a sample says that all fit; the smallest when none does."""
    stride = max(1, len(paths) // SAMPLE)
    sample = paths[::stride]
    for side in THUMBNAIL_SIDES:
        sizes = [len(made) for path in sample if (made := _thumbnail(path, side))]
        if not sizes or SAFETY * sum(sizes) / len(sizes) * len(paths) <= room:
            return side
    return THUMBNAIL_SIDES[-1]


def _opened(path: Path) -> tuple[Image.Image, str | None]:
    """A picture in RGB, and the format of its file.

    Raises:
        ValueError: It can't be read as a picture, or has too many pixels.
    """
    try:
        with open_picture(path) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ValueError(f"{opened.width} × {opened.height} pixels are too many")
            return opened.convert("RGB"), opened.format
    except (OSError, UnidentifiedImageError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"it can't be read as a picture ({error})") from error


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
