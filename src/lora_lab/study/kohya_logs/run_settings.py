"""The settings of runs of kohya's trainer in our spelling, and what differs between them."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_lab.errors import ConfigError
from lora_lab.kohya.arguments import read_arguments
from lora_lab.kohya.translation import translate
from lora_lab.study.read.load import as_text

BESIDE = ("save_every", "sampling.", "logger.", "output_name", "callbacks.", "data.dir")
"""Settings that change nothing that is trained."""


@dataclass(frozen=True)
class RunSettings:
    """Settings of one run."""

    flat: dict[str, str] = field(default_factory=dict)
    """Our key, or kohya.<name> where we have none -> value as text."""
    epochs: int | None = None
    seed: int | None = None
    problem: str = ""
    """Why there are none; empty when there are."""


def read_settings(path: Path | None) -> RunSettings:
    """Read the settings of a run, as far as there are any; never raises for their content."""
    if path is None:
        return RunSettings(problem="no settings of its name were found")
    try:
        found = translate(read_arguments(path))
    except ConfigError as error:
        return RunSettings(problem=str(error))
    named = {**{f"{k}.name": v for k, v in found.groups.items()}, **found.settings}
    flat = {key: as_text(value) for key, value in named.items()}
    flat |= {f"kohya.{key}": why for key, why in found.impossible.items()}
    epochs, seed = found.settings.get("epochs"), found.settings.get("seed")
    return RunSettings(flat, epochs, seed)


def differing(settings: list[RunSettings]) -> tuple[str, ...]:
    """The keys that have more than one value among the runs with settings, and change a LoRA."""
    known = [one.flat for one in settings if one.flat]
    keys = sorted(set().union(*known)) if known else []
    return tuple(
        key
        for key in keys
        if not key.startswith(BESIDE) and len({flat.get(key) for flat in known}) > 1
    )


def schedule_of(
    settings: RunSettings, steps: NDArray[np.int64], total: int
) -> NDArray[np.float64] | None:
    """The learning rate without d that was logged after each step, by the settings.

    Args:
        settings: Of the run.
        steps: Logged steps, (S,).
        total: Steps of the whole run.

    Returns:
        (S,), or None when the settings don't tell.
    """
    flat = settings.flat
    try:
        rate, warmup = float(flat["optimizer.lr"]), float(flat.get("schedule.warmup_steps", "0"))
        power = float(flat.get("schedule.power", "1"))
    except (KeyError, ValueError):
        return None
    if warmup or not (math.isfinite(rate) and math.isfinite(power)):
        return None
    share = steps / max(1, total)
    shapes = {
        "constant": np.ones(len(steps)),
        "cosine": 0.5 * (1 + np.cos(math.pi * share)),
        "linear": 1 - share,
        "polynomial": np.clip(1 - share, 1e-7, None) ** power,
    }
    shape = shapes.get(flat.get("schedule.name", ""))
    return None if shape is None else rate * shape
