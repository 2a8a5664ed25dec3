"""Thumbnails of many images inside a budget of bytes: the largest size at which all of them fit."""

import base64
import io
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from lora_lab.images.opening import open_picture
from lora_lab.study.report.pictures import MAX_PIXELS

log = logging.getLogger(__name__)
SIDES = (512, 384, 256, 192, 160, 128, 96, 64, 48)
"""Pixels of the longer side."""
QUALITY, FINE_QUALITY = 82, 95
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
class Thumbnail:
    """A small picture as base64 text of a WebP file."""

    data: str
    width: int
    """Pixels of the full image."""
    height: int


def make_thumbnails(paths: Sequence[Path], budget: int) -> dict[Path, Thumbnail | None]:
    """Makes thumbnails of all images, as large as the budget allows.

    Args:
        paths: the images, the most important first: what the budget can't hold even at the
            smallest size is left out from the end.
        budget: bytes of text that all of them may take.

    Returns:
        Image -> thumbnail; None for one that can't be read. Images left out are missing.
    """
    room = budget - OVERHEAD * len(paths)
    side = _side(paths, room)
    log.info("%d images, thumbnails of at most %d pixels", len(paths), side)
    found: dict[Path, Thumbnail | None] = {}
    used = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for path, thumbnail in zip(paths, pool.map(lambda p: encode(p, side), paths), strict=True):
            used += len(thumbnail.data) if thumbnail else 0
            if used > room:
                break
            found[path] = thumbnail
    return found


def encode(path: Path, side: int) -> Thumbnail | None:
    """One thumbnail whose longer side has at most ``side`` pixels; None for no picture."""
    try:
        with open_picture(path) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                return None
            picture = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    quality = FINE_QUALITY if max(picture.size) <= min(side, FINE_SIDE) else QUALITY
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=2)
    return Thumbnail(base64.b64encode(buffer.getvalue()).decode("ascii"), width, height)


def _side(paths: Sequence[Path], room: int) -> int:
    """The largest side at which a sample says that all fit; the smallest when none does."""
    stride = max(1, len(paths) // SAMPLE)
    sample = paths[::stride]
    for side in SIDES:
        sizes = [len(made.data) for path in sample if (made := encode(path, side))]
        if not sizes or SAFETY * sum(sizes) / len(sizes) * len(paths) <= room:
            return side
    return SIDES[-1]
