"""Image files: opened to see that they are whole, and as pixels.

Shapes: H and W image sides in pixels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lora_lab.data.buckets import Placement
from lora_lab.errors import LabError
from lora_lab.files import sha256_file


@dataclass(frozen=True)
class ImageFile:
    """An image on disk that has been opened once to see that it is whole."""

    path: Path
    sha256: str
    """Of the file's bytes."""
    size: tuple[int, int]
    """Width and height in pixels, after EXIF's rotation."""


def open_image(path: Path) -> ImageFile:
    """Read an image once, to the last byte.

    Raises:
        LabError: It isn't an image, or it is cut off.
    """
    try:
        with Image.open(path) as image:
            image.load()
            turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 swap the sides
            width, height = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise LabError(
            f"{path}: the image can't be read ({error}); replace the file or remove it"
        ) from error
    return ImageFile(path, sha256_file(path), (height, width) if turned else (width, height))


def load_pixels(path: Path, placement: Placement, flip: bool) -> Tensor:
    """Pixels of an image, turned as EXIF says, scaled, cropped and perhaps mirrored.

    Transparent images lie on white.

    Returns:
        float32 in [-1, 1], (1, 3, H, W).
    """
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
    if image.size != placement.scaled:
        image = image.resize(placement.scaled, Image.Resampling.LANCZOS)
    image = image.crop(placement.crop)
    if flip:
        image = ImageOps.mirror(image)
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32))  # (H, W, 3)
    return (pixels / 127.5 - 1.0).permute(2, 0, 1)[None].contiguous()
