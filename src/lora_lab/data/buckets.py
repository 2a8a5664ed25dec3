"""Aspect ratio buckets: the sizes in which images of any shape are trained.

The arithmetic of kohya's sd-scripts: sides are multiples of a step, the area is at most
resolution², an image goes to the bucket with the nearest aspect ratio, is scaled to cover it and
cropped at its centre or at a random place.
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
        smallest: Shortest side wanted, in pixels; rounded down to the step, as kohya does.
        largest: Longest side wanted, in pixels; rounded up to the step.
        step: Sides are multiples of this, in pixels.
    """
    smallest, largest = rounded_limits(smallest, largest, step)
    square = resolution // step * step
    sizes = {(square, square)}
    for width in range(smallest, min(largest, resolution**2) + 1, step):
        height = min(largest, resolution**2 // width // step * step)
        if height >= smallest:
            sizes |= {(width, height), (height, width)}
    return sorted(sizes)


def rounded_limits(smallest: int, largest: int, step: int) -> tuple[int, int]:
    """Limits of the sides as multiples of the step: down and up, as kohya rounds them."""
    return max(step, _floor(smallest, step)), _round_up(largest, step)


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
    scaled = (max(bucket[0], _half_up(width * scale)), max(bucket[1], _half_up(height * scale)))
    return crop_at(scaled, bucket, None)


def crop_at(
    scaled: tuple[int, int], bucket: tuple[int, int], draws: tuple[int, int] | None
) -> Placement:
    """Crop a scaled image to its bucket.

    Args:
        scaled: Width and height of the scaled image.
        bucket: Width and height wanted, at most those.
        draws: Two large random numbers that choose the place, each evenly; None: the centre.
    """
    spare = (scaled[0] - bucket[0], scaled[1] - bucket[1])
    if draws is None:
        left, top = spare[0] // 2, spare[1] // 2
    else:
        left, top = draws[0] % (spare[0] + 1), draws[1] % (spare[1] + 1)
    return Placement(scaled, (left, top, left + bucket[0], top + bucket[1]))


def place_without_upscale(width: int, height: int, resolution: int, step: int) -> Placement:
    """A bucket of an image's own, never larger than the image (kohya's ``bucket_no_upscale``).

    An image within resolution² pixels keeps its size; a larger one is scaled down so that one side
    is a multiple of the step, whichever changes the aspect ratio less. The bucket is the scaled
    size, floored to the step.

    Args:
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        resolution: Side of the square whose area is the limit, in pixels.
        step: Sides are multiples of this, in pixels.

    Returns:
        The placement; a side of its bucket is 0 if the image is smaller than the step.
    """
    scaled = (width, height)
    if width * height > resolution**2:
        ratio = width / height
        ideal_width = math.sqrt(resolution**2 * ratio)
        by_width = _floor(_half_up(ideal_width), step)
        by_height = _floor(_half_up(resolution**2 / ideal_width), step)
        height_of = _floor(_half_up(by_width / ratio), step)
        width_of = _floor(_half_up(by_height * ratio), step)
        if by_height == 0 or (
            height_of and abs(by_width / height_of - ratio) < abs(width_of / by_height - ratio)
        ):
            scaled = (by_width, _half_up(by_width / ratio))
        else:
            scaled = (_half_up(by_height * ratio), by_height)
    return crop_at(scaled, (_floor(scaled[0], step), _floor(scaled[1], step)), None)


def _round_up(value: int, step: int) -> int:
    return math.ceil(value / step) * step


def _floor(value: int, step: int) -> int:
    return value // step * step


def _half_up(value: float) -> int:
    """Round as kohya does; Python's own round goes to even at one half."""
    return math.floor(value + 0.5)
