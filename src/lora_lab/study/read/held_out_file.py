"""Reading held_out.csv: the loss of each held-out and training image at each timestep.

metrics.csv holds the means over the held-out images; this file holds what they are means of. The
last save measures each held-out image at each timestep; saves before it may measure some of that
alone, of which metrics.csv has the means, and each training image may be measured at one timestep
(`data/probes.py`).
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_lab.files import read_text
from lora_lab.study.read.metrics_table import MetricsTable

HELD_OUT = "val/loss"
"""Column of a run's curves: the loss on held-out images."""
TRAIN_LOSS = "val/train_loss"
"""Column added to a run's curves: the same loss on as many training images."""
COLUMNS = ("step", "set", "image", "timestep", "loss")

UnitLosses = dict[tuple[str, str], float]
"""(image, timestep) -> loss, or what was gained in it."""


@dataclass(frozen=True)
class ImageLosses:
    """Losses of single images."""

    last: int = 0
    """The last step at which held-out images were measured; 0: not after the first step."""
    training: dict[int, float] = field(default_factory=dict)
    """Step -> mean over the training images and timesteps."""
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    """Column of metrics.csv -> step -> mean over the held-out images; empty with a single save,
    whose figures metrics.csv has."""
    final: dict[str, float] = field(default_factory=dict)
    """Held-out image -> mean over the timesteps at the last measured step."""
    units: dict[tuple[str, str], float] = field(default_factory=dict)
    """(held-out image, timestep) -> loss at the last measured step."""
    memorisation: dict[tuple[str, str], float] = field(default_factory=dict)
    """(held-out image, "timestep/training images") -> share of the training images measured there
    that gained more since step 0."""


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
    losses: dict[str, dict[int, UnitLosses]] = {"held_out": {}, "training": {}}
    try:
        for cells in csv.reader(lines[1:]):
            if len(cells) == len(COLUMNS) and cells[0].isdigit() and cells[1] in losses:
                step, part, image, timestep = int(cells[0]), *cells[1:4]
                if until is not None and step > until:
                    continue
                losses[part].setdefault(step, {})[image, timestep] = _number(cells[4])
    except csv.Error:
        return ImageLosses()
    held_out, training = losses["held_out"], losses["training"]
    last = max(held_out, default=0)
    units = held_out.get(last, {})
    return ImageLosses(
        last,
        {step: _mean_of(measured) for step, measured in training.items() if step > 0},
        _curves({step: measured for step, measured in held_out.items() if step > 0}),
        _image_means(units),
        units,
        _memorisation(held_out, training, last),
    )


def _mean_of(losses: UnitLosses) -> float:
    """The mean over the timesteps of the mean at each, so that each counts the same."""
    return float(np.mean(list(_timestep_means(losses).values())))


def _timestep_means(losses: UnitLosses) -> dict[str, float]:
    by_timestep: dict[str, list[float]] = {}
    for (_, timestep), loss in losses.items():
        by_timestep.setdefault(timestep, []).append(loss)
    return {timestep: float(np.mean(values)) for timestep, values in by_timestep.items()}


def _image_means(losses: UnitLosses) -> dict[str, float]:
    by_image: dict[str, list[float]] = {}
    for (image, _), loss in losses.items():
        by_image.setdefault(image, []).append(loss)
    return {image: float(np.mean(values)) for image, values in by_image.items()}


def _curves(losses: Mapping[int, UnitLosses]) -> dict[str, dict[int, float]]:
    """Means over all that the last save measured, as well as they are known at each save.

    A save that measured less is as far from the last one as what all saves measured. So the last
    figure is the exact one, and no save looks better for being measured on easier images.

    Args:
        losses: Step -> what was measured.
    """
    if len(losses) < 2:
        return {}
    last = losses[max(losses)]
    shared = set(last).intersection(*losses.values())
    whole = _timestep_means(last)
    if {timestep for _, timestep in shared} != set(whole):
        return {}
    curves: dict[str, dict[int, float]] = {}
    for step, found in losses.items():
        away = _timestep_means({unit: found[unit] - last[unit] for unit in shared})
        means = {timestep: loss + away[timestep] for timestep, loss in whole.items()}
        for timestep, mean in means.items():
            curves.setdefault(f"{HELD_OUT}_t{timestep}", {})[step] = mean
        curves.setdefault(HELD_OUT, {})[step] = float(np.mean(list(means.values())))
    return curves


def _memorisation(
    held_out: Mapping[int, UnitLosses], training: Mapping[int, UnitLosses], last: int
) -> dict[tuple[str, str], float]:
    """How well the gain over the bare base tells training images from held-out ones.

    The mean over the held-out images is the area under the curve of a membership test by the gain
    (Yeom et al. 2018, arXiv 1709.01604; with the base as reference Carlini et al. 2022, arXiv
    2112.03570): 0.5 tells nothing, 1 tells every image. Gains at two timesteps are of two sizes, so
    images are compared at the same timestep.
    """
    if last == 0:
        return {}
    known: dict[str, list[float]] = {}
    for (_, timestep), gain in _gains(training, last).items():
        known.setdefault(timestep, []).append(gain)
    shares = {}
    for (image, timestep), gain in sorted(_gains(held_out, last).items()):
        others = np.array(known.get(timestep, []))
        if len(others):
            share = float(np.mean(others > gain) + np.mean(others == gain) / 2)
            shares[image, f"{timestep}/{len(others)}"] = share
    return shares


def _gains(losses: Mapping[int, UnitLosses], last: int) -> UnitLosses:
    """What was gained since step 0, where both were measured."""
    before, after = losses.get(0, {}), losses.get(last, {})
    gains = {unit: before[unit] - after[unit] for unit in before.keys() & after.keys()}
    return {unit: gain for unit, gain in gains.items() if math.isfinite(gain)}


def with_image_losses(table: MetricsTable, losses: ImageLosses) -> MetricsTable:
    """The curves with what single images tell.

    The loss on training images where that was measured, and the held-out loss where the saves
    measured it on different images.
    """
    columns = dict(table.columns)
    if losses.training:
        columns[TRAIN_LOSS] = _column(table, losses.training)
    for name, figures in losses.curves.items():
        columns[name] = _column(table, figures)
    return MetricsTable(table.steps, columns, table.notes)


def _column(table: MetricsTable, figures: Mapping[int, float]) -> NDArray[np.float64]:
    return np.array([figures.get(int(step), math.nan) for step in table.steps])


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
