"""Reading held_out.csv: the loss of each held-out and training image at each timestep.

metrics.csv holds the means over the held-out images; this file holds what they are means of.
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lora_lab.files import read_text
from lora_lab.study.read.metrics_table import MetricsTable

TRAIN_LOSS = "val/train_loss"
"""Column added to a run's curves: the same loss on as many training images."""
COLUMNS = ("step", "set", "image", "timestep", "loss")


@dataclass(frozen=True)
class ImageLosses:
    """Losses of single images."""

    last: int = 0
    """The last step at which held-out images were measured; 0: not after the first step."""
    training: dict[int, float] = field(default_factory=dict)
    """Step -> mean over the training images and timesteps."""
    final: dict[str, float] = field(default_factory=dict)
    """Held-out image -> mean over the timesteps at the last measured step."""
    units: dict[tuple[str, str], float] = field(default_factory=dict)
    """(held-out image, timestep) -> loss at the last measured step."""
    memorisation: dict[tuple[str, str], float] = field(default_factory=dict)
    """(held-out image, "") -> share of training images that gained more since step 0."""


def read_image_losses(path: Path, until: int | None = None) -> ImageLosses:
    """Read a held_out.csv; lines that are not whole are left out.

    Args:
        path: The file; without it, or without its columns, nothing is known of single images.
        until: The last step that is read; None reads all.
    """
    try:
        text = read_text(path, errors="replace")
    except OSError:
        return ImageLosses()
    lines = text[: text.rfind("\n") + 1].splitlines()
    if not lines or tuple(lines[0].split(",")) != COLUMNS:
        return ImageLosses()
    losses: dict[tuple[str, int], dict[str, list[float]]] = {}
    units: dict[int, dict[tuple[str, str], float]] = {}
    try:
        for cells in csv.reader(lines[1:]):
            if len(cells) == len(COLUMNS) and cells[0].isdigit():
                step, part, image, timestep = int(cells[0]), *cells[1:4]
                if until is not None and step > until:
                    continue
                loss = _number(cells[4])
                losses.setdefault((part, step), {}).setdefault(image, []).append(loss)
                if part == "held_out":
                    units.setdefault(step, {})[image, timestep] = loss
    except csv.Error:
        return ImageLosses()
    training = {
        step: float(np.mean([np.mean(image) for image in images.values()]))
        for (part, step), images in losses.items()
        if part == "training" and step > 0
    }
    last = max((step for part, step in losses if part == "held_out"), default=0)
    final = losses.get(("held_out", last), {})
    return ImageLosses(
        last,
        training,
        {image: float(np.mean(values)) for image, values in final.items()},
        units.get(last, {}),
        _memorisation(losses, last),
    )


def _memorisation(
    losses: Mapping[tuple[str, int], Mapping[str, list[float]]], last: int
) -> dict[tuple[str, str], float]:
    """How well the gain over the bare base tells training images from held-out ones.

    The mean over the held-out images is the area under the curve of a membership test by the gain
    (Yeom et al. 2018, arXiv 1709.01604; with the base as reference Carlini et al. 2022, arXiv
    2112.03570): 0.5 tells nothing, 1 tells every image.
    """
    gains: dict[str, dict[str, float]] = {}
    for part in ("training", "held_out"):
        before, after = losses.get((part, 0), {}), losses.get((part, last), {})
        gains[part] = {
            image: float(np.mean(before[image]) - np.mean(after[image]))
            for image in before.keys() & after.keys()
        }
    known = np.array([gain for gain in gains["training"].values() if math.isfinite(gain)])
    if last == 0 or not len(known):
        return {}
    return {
        (image, ""): float(np.mean(known > gain) + np.mean(known == gain) / 2)
        for image, gain in sorted(gains["held_out"].items())
        if math.isfinite(gain)
    }


def with_training_images(table: MetricsTable, losses: ImageLosses) -> MetricsTable:
    """The curves with a column for the loss on training images, where that was measured."""
    if not losses.training:
        return table
    column = np.array([losses.training.get(int(step), math.nan) for step in table.steps])
    return MetricsTable(table.steps, {**table.columns, TRAIN_LOSS: column}, table.notes)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
