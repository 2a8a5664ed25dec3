"""A person of a few circles, drawn with numpy, in kohya's folder layout."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 32
_COLORS = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (50, 70, 200)}


def draw_portrait(background: tuple[int, int, int], shift: int) -> np.ndarray:
    """A face with eyes on a plain background.

    Args:
        background: RGB, 0 to 255.
        shift: How far the face stands right of the middle, in pixels.

    Returns:
        uint8, (H, W, 3).
    """
    y, x = np.mgrid[0:SIZE, 0:SIZE]
    image = np.empty((SIZE, SIZE, 3), dtype=np.uint8)
    image[:] = background
    middle = SIZE // 2 + shift
    image[(x - middle) ** 2 + (y - SIZE // 2) ** 2 < 100] = (230, 190, 160)
    for eye in (middle - 4, middle + 4):
        image[(x - eye) ** 2 + (y - SIZE // 2 + 3) ** 2 < 4] = (20, 20, 40)
    return image


def make_tiny_person(folder: Path, train: int = 6, held_out: int = 3) -> Path:
    """Write training and held-out images with captions.

    Args:
        folder: Where `train/` and `held_out/` go.
        train: How many training images.
        held_out: How many held-out images.

    Returns:
        The folder.
    """
    names = list(_COLORS)
    for part, repeats, count in (("train", 2, train), ("held_out", 1, held_out)):
        images = Path(folder) / part / f"{repeats}_zqx person"
        images.mkdir(parents=True)
        for index in range(count):
            color = names[index % len(names)]
            shift = index if part == "train" else -index
            Image.fromarray(draw_portrait(_COLORS[color], shift)).save(images / f"{index:02}.png")
            caption = f"zqx person, {color} background"
            (images / f"{index:02}.txt").write_text(caption, encoding="utf-8")
    return Path(folder)
