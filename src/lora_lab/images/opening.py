"""Opens image files of others: a few formats, regular files, no more pixels than memory holds."""

from functools import cache
from pathlib import Path

from PIL import Image

from lora_lab.files import require_regular

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "AVIF", "HEIF")
"""Pillow knows a format by a file's bytes, not its name; some of the others start programs."""
MAX_PIXELS = 89_000_000
"""About 9,400 x 9,400; such an image takes 0.3 to 1.5 GB while it is read."""


def open_picture(path: Path) -> Image.Image:
    """Open an image file; its pixels are read when they are needed.

    Raises:
        OSError: It can't be read, is no regular file, or of none of the formats.
        ValueError: It has too many pixels.
    """
    require_regular(path)
    try:
        image = Image.open(path, formats=_formats())
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MAX_PIXELS} pixels") from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ValueError(
            f"{image.width} x {image.height} pixels, at most {MAX_PIXELS} are read: make it smaller"
        )
    return image


def _formats() -> list[str]:
    """Those of the formats that this Pillow has; HEIF comes from a package of its own."""
    _load_plugins()
    return [name for name in FORMATS if name in Image.OPEN]


@cache
def _load_plugins() -> None:
    Image.init()
