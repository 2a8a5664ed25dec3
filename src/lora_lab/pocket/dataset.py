"""The pretraining data of pocket: shards of drawn portraits with their attributes.

Shard ``i`` of a set depends on the seed, the set and ``i`` alone, so drawing is resumable and
gives the same bytes with any number of processes. Shapes: ``images`` are ``(N, 64, 64, 3)`` uint8.
"""

import json
import logging
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from lora_lab.files import atomic_path
from lora_lab.pocket.attributes import Attributes, draw_attributes

log = logging.getLogger(__name__)

SHARD = 500
"""Portraits in a shard."""


@dataclass(frozen=True)
class Drawing:
    """A set of portraits."""

    name: str
    count: int
    """Portraits, rounded up to whole shards."""
    style: str
    draw: Callable[[random.Random], Attributes] = draw_attributes
    """Draws what a portrait shows."""


def _draw_shard(index: int, folder: Path, drawing: Drawing, seed: int) -> None:
    from lora_lab.pocket.draw import render

    path = folder / f"{drawing.name}-{index:04d}.npz"
    if path.exists():
        return
    rng = random.Random(f"{seed}/{drawing.name}/{index}")
    drawn = [drawing.draw(rng) for _ in range(SHARD)]
    images = np.stack([render(a, drawing.style, rng) for a in drawn])
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, images=images, attributes=json.dumps([asdict(a) for a in drawn]))


def draw_dataset(folder: Path, drawing: Drawing, seed: int, processes: int = 2) -> None:
    """Draw the portraits that are not yet in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = range(-(-drawing.count // SHARD))
    work = partial(_draw_shard, folder=folder, drawing=drawing, seed=seed)
    with ProcessPoolExecutor(processes) as pool:
        for done, _ in enumerate(pool.map(work, shards), start=1):
            log.info("%s: %d of %d shards drawn", drawing.name, done, len(shards))


def load_dataset(folder: Path, name: str) -> tuple[np.ndarray, list[Attributes]]:
    """Read the shards of one set in order.

    Returns:
        images ``(N, 64, 64, 3)`` uint8, and their attributes.
    """
    images, drawn = [], []
    for path in sorted(folder.glob(f"{name}-*.npz")):
        with np.load(path) as shard:
            images.append(shard["images"])
            drawn += [Attributes(**a) for a in json.loads(str(shard["attributes"]))]
    if not images:
        raise FileNotFoundError(f"{folder}: no shard of {name}; draw the data first")
    return np.concatenate(images), drawn
