"""Which timestep an image is trained at, as a function of one uniform draw.

The draw comes from (seed, image, step, occurrence), so the timestep does as well.
"""

import math
from statistics import NormalDist

_ONE = 2**63
"""Draws are integers in [0, 2^63)."""


def draw_timestep(
    draw: int, sampling: str, low: int, high: int, mean: float = 0.0, std: float = 1.0
) -> int:
    """A timestep in [low, high).

    ``uniform``: all alike. ``logit_normal``: sigmoid(mean + std · n) of the way, n standard normal,
    which favours the middle (arXiv 2403.03206, section 3.1).

    Args:
        draw: Uniform in [0, 2^63).
        sampling: ``uniform`` or ``logit_normal``.
        low: The first timestep.
        high: One more than the last.
        mean: Of the logit; above 0 favours noisier timesteps.
        std: Of the logit; > 0.
    """
    if sampling == "uniform":
        return low + draw % (high - low)
    return low + _floor(_logit_normal((draw + 0.5) / _ONE, mean, std), high - low)


def stratified(
    draw: int,
    stratum: int,
    strata: int,
    sampling: str,
    low: int,
    high: int,
    mean: float = 0.0,
    std: float = 1.0,
) -> int:
    """A timestep in [low, high) from one of equally likely parts of the distribution.

    With as many strata as images in a step, each image of the step gets another part, which lowers
    the variance of the step's gradient (stratified, or low-discrepancy, sampling: "Variational
    Diffusion Models", arXiv 2107.00630, appendix I.1).

    Args:
        draw: Uniform in [0, 2^63): where in the part.
        stratum: Which part, from 0.
        strata: How many parts.
        sampling: ``uniform`` or ``logit_normal``.
        low: The first timestep.
        high: One more than the last.
        mean: Of the logit.
        std: Of the logit.
    """
    share = (stratum + (draw + 0.5) / _ONE) / strata
    if sampling == "logit_normal":
        share = _logit_normal(share, mean, std)
    return low + _floor(share, high - low)


def _logit_normal(share: float, mean: float, std: float) -> float:
    """The quantile function of the logit-normal distribution."""
    inside = min(max(share, 1e-12), 1.0 - 1e-12)  # where the normal quantile is finite
    return 1.0 / (1.0 + math.exp(-(mean + std * NormalDist().inv_cdf(inside))))


def _floor(share: float, count: int) -> int:
    return min(count - 1, int(share * count))
