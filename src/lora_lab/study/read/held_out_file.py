"""Reading held_out.csv: the loss of each held-out and training image at each timestep.

metrics.csv holds the means over the held-out images; this file holds what they are means of.
"""

import csv
import math
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

    training: dict[int, float] = field(default_factory=dict)
    """Step -> mean over the training images and timesteps."""
    final: dict[str, float] = field(default_factory=dict)
    """Held-out image -> mean over the timesteps at the last measured step."""
    units: dict[tuple[str, str], float] = field(default_factory=dict)
    """(held-out image, timestep) -> loss at the last measured step."""


def read_image_losses(path: Path) -> ImageLosses:
    """Reads a held_out.csv; lines that are not whole are left out.

    Args:
        path: the file; without it, or without its columns, nothing is known of single images.
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
                loss = _number(cells[4])
                losses.setdefault((part, step), {}).setdefault(image, []).append(loss)
                if part == "held_out":
                    units.setdefault(step, {})[image, timestep] = loss
    except csv.Error:
        return ImageLosses()
    training = {
        step: float(np.mean([np.mean(image) for image in images.values()]))
        for (part, step), images in losses.items()
        if part == "training"
    }
    last = max((step for part, step in losses if part == "held_out"), default=0)
    final = losses.get(("held_out", last), {})
    return ImageLosses(
        training,
        {image: float(np.mean(values)) for image, values in final.items()},
        units.get(last, {}),
    )


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
