"""What a run will cost, told from its first steps and the shapes of its batches.

A step's time goes with the latent pixels of its batches, and so does the memory of the activations.
"""

import statistics
from dataclasses import asdict, dataclass
from typing import Any

from lora_lab.clock import duration

WARM_UP = 1
"""Steps at the start that are slower than the rest: libraries choose their kernels there."""
MEASURED = 3
"""Steps after the warm-up whose median counts."""


@dataclass(frozen=True)
class Forecast:
    """What the steps that are left will take, those measured included."""

    steps: int
    seconds_per_step: float
    seconds: float
    """Of the steps; saving and the held-out loss come on top."""
    process_bytes: int
    """Most memory of the process."""
    device_bytes: int | None
    """Most memory of the GPU; None without one."""
    lora_values: int
    """Numbers that are trained."""
    lora_bytes: int
    """Of these numbers, their gradients and the optimizer's state."""

    def facts(self) -> dict[str, Any]:
        """For run.json."""
        return asdict(self)

    def line(self) -> str:
        """One line for a person."""
        memory = f"{self.process_bytes / 1e9:.2f} GB of memory"
        if self.device_bytes is not None:
            memory += f", {self.device_bytes / 1e9:.2f} GB on the GPU"
        return (
            f"estimate: {self.steps} steps of {self.seconds_per_step:.3g} s, "
            f"{duration(self.seconds)} of training; {memory} "
            f"(LoRA and optimizer: {self.lora_bytes / 1e6:.1f} MB for {self.lora_values} values)"
        )


@dataclass(frozen=True)
class Memory:
    """Bytes at two moments of a run."""

    before: int
    """When training began."""
    peak: int
    """Most of them until the steps were measured."""

    def at(self, ratio: float) -> int:
        """The peak with batches ``ratio`` times as large as those measured."""
        return max(self.peak, round(self.before + (self.peak - self.before) * ratio))


def seconds_ahead(steps: list[float], areas: list[float], area_left: float) -> float:
    """Seconds of the measured steps and of those that follow.

    Args:
        steps: Seconds of the first steps.
        areas: Latent pixels of each of them.
        area_left: Latent pixels of the steps that follow.
    """
    skip = WARM_UP if len(steps) > WARM_UP else 0
    rates = [s / area for s, area in zip(steps[skip:], areas[skip:], strict=True)]
    return sum(steps) + statistics.median(rates) * area_left


def relative_error(predicted: float, actual: float) -> float:
    """How far a prediction was off, as a share of the truth; above 0 is too much."""
    return round((predicted - actual) / actual, 4)
