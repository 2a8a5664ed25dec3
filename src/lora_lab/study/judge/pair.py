"""Paired training loss: value - base, step by step under the same noise.

Noise, timesteps and data order depend on the seed, the image and the step alone, so two runs of
one seed see the same draws and their difference is free of them. That holds only where both take
the same steps; with another number of steps an epoch (batch size, repeats) the epochs' means are
compared instead. Shapes: P shared points (steps or epochs).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_lab.statistics.curves import (
    moving_average,
    paired_difference,
    pooled_sd,
    tail_mean,
)
from lora_lab.study.read.load import Run

STEP_LOSS = "loss/step"
EPOCH_LOSS = "loss/epoch"
TAIL = 0.2
"""Share of the training at its end that tail figures are means of."""
SMOOTHING = 0.05
"""Share of the points that a window of the smoothed difference spans."""


@dataclass(frozen=True)
class PairedLoss:
    """Difference of two training losses where both were measured."""

    points: NDArray[np.int64]
    """Steps or epochs, ascending, (P,)."""
    difference: NDArray[np.float64]
    """value - base, (P,)."""
    unit: str
    """step or epoch."""

    @property
    def mean(self) -> float:
        """Mean difference over the whole training."""
        return tail_mean(self.difference, 1.0)

    @property
    def tail(self) -> float:
        """Mean difference over the last fifth of the training."""
        return tail_mean(self.difference, TAIL)

    @property
    def smoothed(self) -> NDArray[np.float64]:
        """Moving average of the difference over a twentieth of the points, (P,)."""
        return moving_average(self.difference, smoothing_window(len(self.points)))


def smoothing_window(points: int) -> int:
    """Points in the window that smooths a curve of so many points."""
    return max(1, round(SMOOTHING * points))


def epoch_curve(run: Run) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Mean training loss by epoch.

    Returns:
        Epochs, (E,), and the loss of each, (E,): what the run logged as loss/epoch, or the mean
        of its steps in epochs for which it logged none.
    """
    epochs = run.metrics.column("epoch")
    known = np.isfinite(epochs)
    numbers = np.unique(epochs[known].astype(np.int64))
    step_loss, epoch_loss = run.metrics.column(STEP_LOSS), run.metrics.column(EPOCH_LOSS)
    losses = []
    for number in numbers:
        rows = known & (epochs == number)
        logged = epoch_loss[rows]
        logged = logged[np.isfinite(logged)]
        losses.append(logged[-1] if len(logged) else tail_mean(step_loss[rows], 1.0))
    return numbers, np.array(losses, np.float64)


def same_steps(run: Run, base: Run) -> bool:
    """Whether step s of both runs falls into the same epoch for every shared step."""
    shared, own, theirs = np.intersect1d(run.metrics.steps, base.metrics.steps, return_indices=True)
    epochs, base_epochs = run.metrics.column("epoch")[own], base.metrics.column("epoch")[theirs]
    known = np.isfinite(epochs) & np.isfinite(base_epochs)
    return len(shared) > 0 and bool(np.all(epochs[known] == base_epochs[known]))


def pair_loss(run: Run, base: Run) -> PairedLoss | None:
    """Pair a run's training loss with the base's.

    Args:
        run: The run of a value (or of another base seed, to see what a seed alone does).
        base: The base run.

    Returns:
        The paired difference, or None when the two share no measured point.
    """
    if same_steps(run, base):
        unit = "step"
        points, difference = paired_difference(
            run.metrics.steps,
            run.metrics.column(STEP_LOSS),
            base.metrics.steps,
            base.metrics.column(STEP_LOSS),
        )
    else:
        unit = "epoch"
        points, difference = paired_difference(*epoch_curve(run), *epoch_curve(base))
    return PairedLoss(points, difference, unit) if len(points) else None


def seed_sd_of_smoothed_loss(base_runs: tuple[Run, ...]) -> float:
    """Standard deviation between the base's seeds of the smoothed training loss, pooled.

    Returns:
        The deviation in units of the loss; NaN with fewer than two base runs that share steps.
    """
    if len(base_runs) < 2:
        return float("nan")
    first = base_runs[0]
    shared = first.metrics.steps
    for run in base_runs[1:]:
        shared = np.intersect1d(shared, run.metrics.steps)
    if len(shared) == 0:
        return float("nan")
    window = smoothing_window(len(shared))
    curves = [
        moving_average(run.metrics.column(STEP_LOSS)[np.isin(run.metrics.steps, shared)], window)
        for run in base_runs
    ]
    return pooled_sd(np.stack(curves))
