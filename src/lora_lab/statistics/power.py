"""What a study could have seen, and how many seeds would show more.

Shapes: V values of one metric.
"""

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lora_lab.statistics.crossed import Array, Effects
from lora_lab.statistics.family import ALPHA, decide

POWER = 0.8
"""How likely a study shows a difference of the size that it calls detectable."""
MOST_SEEDS = 64
"""More seeds than this are not proposed."""
_QUANTILES = (np.arange(400) + 0.5) / 400


def detectable(effects: Effects, half_width: Array, power: float = POWER) -> Array:
    """The true difference that a study like this one shows with a given probability.

    Args:
        effects: The values of one metric, (V,).
        half_width: Of their intervals, (V,), from `decide`.
        power: The probability.

    Returns:
        (V,), in the metric's unit; 0 where nothing varies.
    """
    error, roots = effects.standard_error, _roots(effects.df)
    low, high = np.zeros(len(effects)), 8 * half_width + 8 * error
    for _ in range(40):
        middle = (low + high) / 2
        enough = chance(middle, error, half_width, roots) >= power
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(effects.fixed, 0.0, high)


def detectable_with(effects: Effects, seeds: int, alpha: float = ALPHA) -> Array:
    """The same if the values had another number of seeds.

    Args:
        effects: The values of one metric, (V,).
        seeds: Of value and base, >= 2.
        alpha: Error rate of the metric.

    Returns:
        (V,), in the metric's unit.
    """
    more = effects.with_seeds(seeds)
    return detectable(more, decide(more, alpha).half_width)


def _roots(df: Array) -> Array:
    """Quantiles of the root of chi-square / df, (Q, V)."""
    return np.asarray(np.sqrt(stats.chi2.ppf(_QUANTILES[:, None], df) / df))


def chance(difference: Array, error: Array, half_width: Array, roots: Array) -> Array:
    """Probability that a true difference exceeds the half width of its interval.

    The measured difference varies with ``error``, the half width with the root of a chi-square: the
    power of Student's test, integrated over that root.

    Args:
        difference: true difference, >= 0, (V,).
        error: Its standard error, (V,).
        half_width: Expected half width of its interval, (V,).
        roots: Quantiles of the root of chi-square / df, at equal steps, (Q, V).

    Returns:
        (V,); 1 where nothing varies and the difference isn't 0.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        shift, bound = np.nan_to_num(difference / error), np.nan_to_num(half_width / error)
    found = stats.norm.cdf(shift - bound * roots).mean(axis=0)
    return np.where(error == 0, np.where(difference > 0, 1.0, 0.0), found)


def seeds_for(
    effects: Effects, place: int, size: float, alpha: float = ALPHA, most: int = MOST_SEEDS
) -> int | None:
    """How many seeds would show a difference of this size with probability 0.8.

    Args:
        effects: The values of one metric, (V,).
        place: Which of them.
        size: The difference, in the metric's unit, > 0.
        alpha: Error rate of the metric.
        most: The most that are tried.

    Returns:
        Seeds in all, at least those that there are; None when ``most`` don't suffice, because the
        clusters are too few or the seeds differ too much.
    """

    def suffices(seeds: int) -> bool:
        return bool(detectable_with(effects, seeds, alpha)[place] <= size)

    fewest = max(2, int(effects.seeds[place]))
    if fewest > most or not suffices(most):
        return None
    return bisect_left(range(most + 1), True, lo=fewest, key=suffices)


def worth_more_seeds(
    effect: Array, half_width: Array, seeds: int, most: int, level: float, margin: float
) -> NDArray[np.bool_]:
    """Whether more seeds may show a difference, or that there is none within a margin.

    The standard error is taken to shrink with the root of the seeds. The effect may lie one of
    today's standard errors farther out, or nearer, than it was measured.

    Args:
        effect: Measured differences, (V,).
        half_width: Of their intervals, (V,).
        seeds: That they were measured under, >= 2.
        most: Seeds that a value may get.
        level: Error rate of the intervals.
        margin: The difference that doesn't matter, in the metric's unit; 0 asks for a difference.

    Returns:
        (V,)
    """
    error = half_width / stats.t.isf(level / 2, seeds - 1)
    width = stats.t.isf(level / 2, most - 1) * error * np.sqrt(seeds / most)
    size = np.abs(effect)
    shown = size + error > width
    as_good = np.maximum(size - error, 0.0) + width < margin
    return np.asarray(shown | as_good)
