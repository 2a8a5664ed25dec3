"""Masks beside images: where the loss counts.

``image.mask.png`` beside ``image.png``, or ``masks/<folder>/image.png`` in the data folder. White
counts fully, black not at all. A mask goes the way of its image: scaled, cropped, mirrored.

Shapes: h and w latent sides.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lora_lab.data.buckets import Placement
from lora_lab.data.images import ImageFile, open_image, placed, upright
from lora_lab.errors import LabError

SUFFIX = ".mask.png"
FOLDER = "masks"


@dataclass(frozen=True)
class MaskFile:
    """A mask on disk."""

    path: Path
    sha256: str
    """Of the file's bytes."""


def is_mask(path: Path) -> bool:
    """Whether a file is a mask by its name."""
    return path.name.lower().endswith(SUFFIX)


def mask_path(image: Path, root: Path) -> Path | None:
    """The mask of an image, if there is one.

    Args:
        image: The image file.
        root: The data folder, which may hold ``masks/``.
    """
    for path in (
        image.with_name(image.stem + SUFFIX),
        root / FOLDER / image.parent.name / f"{image.stem}.png",
    ):
        if path.is_file():
            return path
    return None


def open_mask(path: Path, image: ImageFile) -> MaskFile:
    """Read a mask once.

    Raises:
        LabError: It can't be read, or its size differs from the image's.
    """
    mask = open_image(path)
    if mask.size != image.size:
        raise LabError(
            f"{path}: the mask is {_sides(mask.size)}, its image {image.path.name} is "
            f"{_sides(image.size)}; save the mask in the image's size"
        )
    return MaskFile(path, mask.sha256)


def load_mask(mask: MaskFile, placement: Placement, flip: bool, latent_factor: int) -> Tensor:
    """Weights of the latent pixels: the share of white in the pixels that each stands for.

    Args:
        mask: The mask file.
        placement: Scaling and crop of its image.
        flip: Whether the image is mirrored.
        latent_factor: Pixels a latent, per side.

    Returns:
        float32 in [0, 1], (1, h, w).
    """
    grey = upright(mask.path).convert("L")
    grey = placed(grey, placement, flip, Image.Resampling.BILINEAR)
    size = (grey.width // latent_factor, grey.height // latent_factor)
    weights = np.asarray(grey.resize(size, Image.Resampling.BOX), dtype=np.float32) / 255.0
    return torch.from_numpy(weights)[None].contiguous()


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
