"""How sharp an image is, and which images are nearly the same.

Shapes: H and W image sides in pixels.
"""

from collections.abc import Sequence

import imagehash
import numpy as np
from PIL import Image

NEAR = 4
"""Perceptual hashes of 64 bits that differ in at most as many belong to nearly the same image."""
BLURRED = 100.0
"""A variance of the Laplacian below this is called blurred (the usual threshold on 0 to 255)."""


def laplacian_variance(image: Image.Image) -> float:
    """Variance of the Laplacian of an image's grey values, low where nothing is sharp.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy" (2000), with the kernel of
    four neighbours.

    Args:
        image: At the size at which it is judged; at least 3x3 pixels.
    """
    grey = np.asarray(image.convert("L"), dtype=np.float64)  # (H, W)
    middle = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4.0 * middle).var())


def perceptual_hash(image: Image.Image) -> imagehash.ImageHash:
    """64 bits of the image's coarse shapes (DCT), which scaling and compression hardly change."""
    return imagehash.phash(image)


def near_groups(hashes: Sequence[imagehash.ImageHash], limit: int = NEAR) -> list[list[int]]:
    """Groups of images that are nearly the same, each in ascending order of their indices.

    Two images belong together if their hashes differ in at most ``limit`` bits, or if a third one
    links them.

    Args:
        hashes: Of the images.
        limit: Bits that may differ.
    """
    group_of = list(range(len(hashes)))
    for later in range(len(hashes)):
        for earlier in range(later):
            if hashes[later] - hashes[earlier] <= limit and group_of[later] != group_of[earlier]:
                old, new = group_of[later], group_of[earlier]
                group_of = [new if group == old else group for group in group_of]
    groups: dict[int, list[int]] = {}
    for index, group in enumerate(group_of):
        groups.setdefault(group, []).append(index)
    return [group for group in groups.values() if len(group) > 1]
