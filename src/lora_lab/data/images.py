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
from lora_lab.images.opening import open_picture

BAND = 256
"""Rows or columns of an image that are held as numbers of 64 bits at a time."""


@dataclass(frozen=True)
class ImageFile:
    """An image on disk that has been opened once to see that it is whole."""

    path: Path
    sha256: str
    """Of the file's bytes."""
    size: tuple[int, int]
    """Width and height in pixels, after EXIF's rotation."""


@dataclass(frozen=True)
class ColorChange:
    """A small change of colour, the same for all pixels of an image."""

    hue: int
    """Turn of the hue in 1/256 of the circle."""
    gamma: float
    """Exponent on brightness from 0 to 1; above 1 darkens."""

    def apply(self, image: Image.Image) -> Image.Image:
        """The image with its hue turned and its brightness bent."""
        hue, saturation, value = image.convert("HSV").split()
        hue = hue.point([(level + self.hue) % 256 for level in range(256)])
        bent = [round(255 * (level / 255) ** self.gamma) for level in range(256)]
        return Image.merge("HSV", (hue, saturation, value.point(bent))).convert("RGB")


HEIC = (".heic", ".heif")
"""What phones write; read with the package pillow-heif."""


def _learn_heic(path: Path) -> None:
    """Teach PIL to read HEIC where a file needs it.

    Raises:
        LabError: The package is missing.
    """
    if path.suffix.lower() not in HEIC:
        return
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise LabError(
            f"{path}: {path.suffix} needs the package pillow-heif: pip install 'lora-lab[heic]', "
            "or save the image as PNG"
        ) from None
    register_heif_opener()


def open_image(path: Path) -> ImageFile:
    """Read an image once, to the last byte; of an animation the first frame.

    Raises:
        LabError: It isn't an image, it is cut off, or its format needs a package.
    """
    _learn_heic(path)
    try:
        with open_picture(path) as image:
            image.load()
            turned = image.getexif().get(0x0112) in (5, 6, 7, 8)  # these swap the sides
            width, height = image.size
    except (OSError, SyntaxError, ValueError, TypeError) as error:
        raise LabError(
            f"{path}: the image can't be read ({error}); replace the file or remove it"
        ) from error
    return ImageFile(path, sha256_file(path), (height, width) if turned else (width, height))


def load_pixels(
    path: Path,
    placement: Placement,
    flip: bool,
    color: ColorChange | None = None,
    resize_filter: str = "area",
) -> Tensor:
    """Pixels of an image, turned as EXIF says, scaled, cropped and perhaps mirrored and coloured.

    Transparent images lie on white; of an animation the first frame is read. An image is enlarged
    by Lanczos with either filter, as in kohya's sd-scripts.

    Args:
        path: The image.
        placement: Its scaling and crop.
        flip: Whether it is mirrored.
        color: Its change of colour.
        resize_filter: How it is made smaller: area or lanczos.

    Returns:
        float32 in [-1, 1], (1, 3, H, W).
    """
    whole = upright(path)
    smaller = all(new <= old for new, old in zip(placement.scaled, whole.size, strict=True))
    if resize_filter == "area" and smaller:
        whole = shrunk_by_area(whole, placement.scaled)
    image = placed(whole, placement, flip, Image.Resampling.LANCZOS)
    if color is not None:
        image = color.apply(image)
    pixels = torch.from_numpy(np.asarray(image, dtype=np.float32))  # (H, W, 3)
    return (pixels / 127.5 - 1.0).permute(2, 0, 1)[None].contiguous()


def upright(path: Path) -> Image.Image:
    """The first frame of an image file as 8-bit RGB, turned as EXIF says, transparency on white."""
    _learn_heic(path)
    with open_picture(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16 bits of grey: convert() would cut them off at 255
            image = _eight_bits(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image if image.mode == "RGB" else image.convert("RGB")


def shrunk_by_area(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """An image made smaller: each pixel is the mean of the area that it covers.

    A pixel that is covered in part counts in part, as with OpenCV's INTER_AREA, which kohya uses;
    PIL's BOX takes whole pixels.

    Args:
        image: 8-bit RGB.
        size: Width and height, neither larger than the image's.
    """
    whole = np.asarray(image)  # (H, W, 3)
    lefts = range(0, whole.shape[1], BAND)  # the whole of a large image is many times its file
    columns = [_means_along(whole[:, x : x + BAND].astype(np.float64), 0, size[1]) for x in lefts]
    pixels = _means_along(np.concatenate(columns, axis=1), 1, size[0])
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def _means_along(pixels: np.ndarray, axis: int, length: int) -> np.ndarray:
    """Means over equal parts of an axis, from the running sum at their fractional edges."""
    before = pixels.shape[axis]
    if length == before:
        return pixels
    sums = np.cumsum(pixels, axis=axis)
    sums = np.concatenate([np.zeros_like(np.take(sums, [0], axis)), sums], axis=axis)
    edges = np.arange(length + 1) * (before / length)
    low = np.minimum(np.floor(edges).astype(int), before - 1)
    shape = [1] * pixels.ndim
    shape[axis] = length + 1
    share = (edges - low).reshape(shape)
    at_edges = np.take(sums, low, axis) * (1 - share) + np.take(sums, low + 1, axis) * share
    return np.diff(at_edges, axis=axis) * (length / before)


def _eight_bits(image: Image.Image) -> Image.Image:
    grey = np.asarray(image)
    bands = [np.rint(grey[top : top + BAND] / 257.0) for top in range(0, len(grey), BAND)]
    return Image.fromarray(np.concatenate([np.clip(b, 0, 255).astype(np.uint8) for b in bands]))


def placed(
    image: Image.Image, placement: Placement, flip: bool, resample: Image.Resampling
) -> Image.Image:
    """Scale, crop and perhaps mirror an image."""
    if image.size != placement.scaled:
        image = image.resize(placement.scaled, resample)
    image = image.crop(placement.crop)
    return ImageOps.mirror(image) if flip else image
