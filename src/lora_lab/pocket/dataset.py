"""The pretraining data of pocket: shards of drawn portraits with their attributes.

Shard ``i`` of a style depends on the seed, the style and ``i`` alone, so drawing is resumable and
gives the same bytes with any number of processes. Shapes: ``images`` are ``(N, 64, 64, 3)`` uint8.
"""

import json
import logging
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from lora_lab.files import atomic_path
from lora_lab.pocket.attributes import Attributes, draw_attributes

log = logging.getLogger(__name__)

SHARD = 500
"""Portraits in a shard."""


def _draw_shard(index: int, folder: Path, style: str, seed: int) -> None:
    from lora_lab.pocket.draw import render

    path = folder / f"{style}-{index:04d}.npz"
    if path.exists():
        return
    rng = random.Random(f"{seed}/{style}/{index}")
    drawn = [draw_attributes(rng) for _ in range(SHARD)]
    images = np.stack([render(a, style, rng) for a in drawn])
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, images=images, attributes=json.dumps([asdict(a) for a in drawn]))


def draw_dataset(folder: Path, style: str, count: int, seed: int, processes: int = 2) -> None:
    """Draw ``count`` portraits (rounded up to whole shards) that are not yet in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = range(-(-count // SHARD))
    work = partial(_draw_shard, folder=folder, style=style, seed=seed)
    with ProcessPoolExecutor(processes) as pool:
        for done, _ in enumerate(pool.map(work, shards), start=1):
            log.info("%s: %d of %d shards drawn", style, done, len(shards))


def load_dataset(folder: Path, style: str) -> tuple[np.ndarray, list[Attributes]]:
    """Read the shards of one style in order.

    Returns:
        images ``(N, 64, 64, 3)`` uint8, and their attributes.
    """
    images, drawn = [], []
    for path in sorted(folder.glob(f"{style}-*.npz")):
        with np.load(path) as shard:
            images.append(shard["images"])
            drawn += [Attributes(**a) for a in json.loads(str(shard["attributes"]))]
    if not images:
        raise FileNotFoundError(f"{folder}: no shard of style {style}; draw the data first")
    return np.concatenate(images), drawn
