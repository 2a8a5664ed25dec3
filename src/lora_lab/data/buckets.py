"""Aspect ratio buckets: the sizes in which images of any shape are trained.

The arithmetic of kohya's sd-scripts: sides are multiples of a step, the area is at most
resolution², an image goes to the bucket with the nearest aspect ratio, is scaled to cover it and
cropped at its centre.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Placement:
    """How an image gets into its bucket, in pixels."""

    scaled: tuple[int, int]
    """Width and height after scaling."""
    crop: tuple[int, int, int, int]
    """Left, top, right and bottom of the crop in the scaled image."""

    @property
    def bucket(self) -> tuple[int, int]:
        """Width and height of the bucket."""
        left, top, right, bottom = self.crop
        return right - left, bottom - top


def bucket_sizes(resolution: int, smallest: int, largest: int, step: int) -> list[tuple[int, int]]:
    """All buckets (width, height), sorted.

    For each width that is a multiple of the step, the largest height that keeps the area within
    resolution², and the same turned by 90°; plus the square. 512 with 256..1024 and step 64 gives
    17 buckets.

    Args:
        resolution: Side of the square whose area is the limit, in pixels.
        smallest: Shortest side allowed, in pixels.
        largest: Longest side allowed, in pixels.
        step: Sides are multiples of this, in pixels.
    """
    square = resolution // step * step
    sizes = {(square, square)}
    for width in range(_round_up(smallest, step), min(largest, resolution**2) + 1, step):
        height = min(largest, resolution**2 // width // step * step)
        if height >= smallest:
            sizes |= {(width, height), (height, width)}
    return sorted(sizes)


def nearest_bucket(width: int, height: int, sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """The bucket whose aspect ratio is nearest; of equally near ones the largest."""
    ratio = width / height
    return min(sizes, key=lambda size: (abs(size[0] / size[1] - ratio), -size[0] * size[1]))


def place(width: int, height: int, bucket: tuple[int, int]) -> Placement:
    """Scale an image so that it covers the bucket, keeping its aspect ratio, and crop the centre.

    Args:
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        bucket: Width and height wanted.
    """
    scale = max(bucket[0] / width, bucket[1] / height)
    scaled = (max(bucket[0], round(width * scale)), max(bucket[1], round(height * scale)))
    left, top = (scaled[0] - bucket[0]) // 2, (scaled[1] - bucket[1]) // 2
    return Placement(scaled, (left, top, left + bucket[0], top + bucket[1]))


def _round_up(value: int, step: int) -> int:
    return math.ceil(value / step) * step
