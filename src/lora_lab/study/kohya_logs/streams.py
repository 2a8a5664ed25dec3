"""Which runs saw the same noise, and which of those the same inputs.

The loss of a step depends mostly on the timestep, the noise and the image of that step. Two runs
that drew the same ones rise and fall together, step by step, whatever they learn; two that did not
have nothing in common. Before the first update nothing was learned: where runs of one stream differ
in their very first loss, and the setting under study can't be why, their inputs differed (other
latents from another VAE or a stale cache, other captions, another checkpoint).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAME = 0.995
"""Correlation of the losses of one stream: above 0.999 in the guide's logs, others below 0.98."""
RELATED = 0.9
"""Correlation of losses under the same noise and timesteps with other images: 0.97 to 0.98 in the
guide's logs, at most 0.57 under other noise."""
MIN_STEPS = 20
"""With fewer shared steps a correlation says nothing."""
SAME_START = 0.005
"""First losses that differ by more, as a share, come from other inputs; 16-bit rounding is less."""
FIRST = 120
"""Steps at the start, before training has changed much, in which two runs are held together."""
ONE_SIDED = 1.02
"""A weight of at most 1 never lifts a loss; so much is left to rounding and to learning."""
SAME_LOSS = 1e-3
"""Two losses of one step that differ by less, as a share, were computed from the same draw."""
LEAST_SAME = 4
"""So many of the first 120 by chance have a probability of 1e-5: the losses of two runs spread by a
factor of about two, so two that have nothing in common agree in one step of a thousand."""


@dataclass(frozen=True)
class LossCurve:
    """The loss of one run by step, S steps."""

    steps: NDArray[np.int64]
    """(S,)"""
    loss: NDArray[np.float64]
    """(S,), finite."""


@dataclass(frozen=True)
class StreamMember:
    """Where a run belongs."""

    stream: int
    """Runs with the same number saw the same noise; from 1."""
    inputs: str
    """Runs of one stream with the same letter started from the same loss."""
    correlation: float
    """Step by step with the first run of its stream."""


def correlation(one: LossCurve, other: LossCurve) -> float:
    """Correlation of two losses at the steps that both have; NaN with too few."""
    shared, own, theirs = np.intersect1d(one.steps, other.steps, return_indices=True)
    if len(shared) < MIN_STEPS:
        return float("nan")
    first, second = one.loss[own], other.loss[theirs]
    if first.std() == 0 or second.std() == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def start_ratio(one: LossCurve, other: LossCurve) -> float:
    """The first loss of one as a multiple of the other's; NaN when step 1 isn't in both."""
    if not (len(one.steps) and len(other.steps)) or one.steps[0] != 1 or other.steps[0] != 1:
        return float("nan")
    return float(one.loss[0] / other.loss[0]) if other.loss[0] else float("nan")


def mean_ratio(one: LossCurve, other: LossCurve) -> float:
    """The mean loss over the shared steps as a multiple of the other's."""
    shared, own, theirs = np.intersect1d(one.steps, other.steps, return_indices=True)
    return float(one.loss[own].mean() / other.loss[theirs].mean()) if len(shared) else float("nan")


def is_reweighted(one: LossCurve, other: LossCurve) -> bool:
    """Whether one run's losses are the other's times a weight that is never above 1.

    That is what min-SNR makes of the same noise. Of two runs with other noise, half of the steps
    would lie on each side.
    """
    ratio = _first_ratios(one, other)
    if len(ratio) < MIN_STEPS:
        return False
    return bool(ratio.max() <= ONE_SIDED or ratio.min() >= 1 / ONE_SIDED)


def is_reordered(one: LossCurve, other: LossCurve) -> bool:
    """Whether two runs drew the same noise and timesteps but showed the images in another order.

    Noise and timestep make most of a step's loss, so the losses still rise and fall together; and
    where both orders have the same images they are the same.
    """
    ratio = _first_ratios(one, other)
    alike = int((np.abs(ratio - 1) < SAME_LOSS).sum())
    return alike >= LEAST_SAME or correlation(one, other) >= RELATED


def _first_ratios(one: LossCurve, other: LossCurve) -> NDArray[np.float64]:
    """The losses of one as multiples of the other's, at the first steps that both have."""
    _, own, theirs = np.intersect1d(one.steps, other.steps, return_indices=True)
    own, theirs = own[:FIRST], theirs[:FIRST]
    known = other.loss[theirs] > 0
    return np.asarray(one.loss[own][known] / other.loss[theirs][known])


def group_streams(curves: list[LossCurve]) -> list[StreamMember]:
    """Sort runs by noise stream, and within each by where they started.

    Each run is compared with the first run of every stream so far.

    Args:
        curves: The runs' losses.
    """
    streams: list[list[LossCurve]] = []  # of each stream, the first run of each kind of inputs
    members = []
    for curve in curves:
        close = [correlation(curve, kinds[0]) for kinds in streams]
        number = next((i for i, value in enumerate(close) if value >= SAME), len(streams))
        if number == len(streams):
            streams.append([])
            close.append(1.0)
        kinds = streams[number]
        alike = (i for i, kind in enumerate(kinds) if _starts_alike(curve, kind))
        letter = next(alike, len(kinds))
        if letter == len(kinds):
            kinds.append(curve)
        members.append(StreamMember(number + 1, _letter(letter), close[number]))
    return members


def _starts_alike(one: LossCurve, other: LossCurve) -> bool:
    """Whether nothing speaks against the same inputs."""
    ratio = start_ratio(one, other)
    return not abs(ratio - 1) > SAME_START  # an unknown ratio speaks against nothing


def _letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else f"A{index}"
