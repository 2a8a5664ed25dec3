"""One error rate for all values and metrics of a report, and intervals that agree with it.

A value's difference is called real if it exceeds

    sqrt(t_seed^2 MS_seed + t_cluster^2 MS_cluster) / sqrt(K C),

where t is Student's quantile of each part's own degrees of freedom. This bound holds its level
whatever share of the variance is the seeds' (Banerjee 1961, Journal of the American Statistical
Association 56, 639-649, for the problem of Behrens and Fisher); Satterthwaite's degrees of freedom
don't with few seeds.

Over V values the largest of their bounds is taken for all of them, in units of each value's own
rest. With few seeds a variance that is small by luck is what makes false verdicts, and the largest
of several is rarely small by luck: up to eight seeds this costs nothing beyond the test of a single
value, where Bonferroni's correction for three values and three seeds asks 1.8 times as much.
The values are tested from the largest difference down; one that was shown leaves the family, and
its error with it (closed testing: Marcus, Peritz and Gabriel 1976, Biometrika 63, 655-660). Chosen
by simulation, docs/verdicts.md.

Shapes: V values, ``...`` further axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lora_lab.statistics.crossed import Array, Effects

ALPHA = 0.05
"""Share of studies without any difference that may show one."""
PRIMARY_SHARE = 0.8
"""Part of the error rate that the first metric of a report gets; the others share what is left."""
SPENDING_POWER = 1.0
"""alpha(t) = alpha t^power of the error is spent when the share t of the seeds was seen."""
_SMALLEST_P = 1e-12
_GRID = np.geomspace(0.05, 500, 250)
_POINTS = 400


@dataclass(frozen=True)
class Decisions:
    """What a family's test says of each value, each (..., V)."""

    shown: NDArray[np.bool_]
    """Whether the value differs from the base."""
    half_width: Array
    """Half the width of the interval; it excludes 0 exactly where a difference is shown."""


def decide(effects: Effects, alpha: float = ALPHA) -> Decisions:
    """Tests all values of one metric with an error rate of alpha for all of them together.

    Args:
        effects: the values of one metric, (..., V).
        alpha: probability of any false verdict.
    """
    order, keys, scale = _ordered(effects)
    limits = _limits(effects, order, scale, alpha)
    ahead = np.logical_and.accumulate(keys > limits, axis=-1)  # shown, from the largest down
    first_open = np.minimum(ahead.sum(axis=-1, keepdims=True), len(effects) - 1)
    open_limit = np.take_along_axis(limits, first_open, axis=-1)
    # An open value is held against the bound at which the test stopped.
    widths = np.where(ahead, limits, open_limit)
    back = np.argsort(order, axis=-1)
    width = np.take_along_axis(widths, back, axis=-1) * scale
    return Decisions(np.take_along_axis(ahead, back, axis=-1), np.where(effects.fixed, 0.0, width))


def p_values(effects: Effects) -> Array:
    """The smallest error rate at which `decide` shows each value's difference, (V,)."""
    if not len(effects):
        return np.empty(0)
    order, keys, scale = _ordered(effects)
    low = np.full(len(effects), np.log(_SMALLEST_P))
    high = np.zeros(len(effects))
    for _ in range(50):
        middle = (low + high) / 2
        limits = np.array(
            [
                _limit(effects, order, scale, step, float(np.exp(one)))
                for step, one in enumerate(middle)
            ]
        )
        shown = keys > limits
        low, high = np.where(shown, low, middle), np.where(shown, middle, high)
    ordered = np.maximum.accumulate(np.exp(high))
    result = np.empty(len(effects))
    result[order] = ordered
    return result


def equivalent(effects: Effects, margin: float, alpha: float = ALPHA) -> NDArray[np.bool_]:
    """Which values are as good as the base: two one-sided tests within a margin.

    Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15, 657-680; with the bound of
    `decide` at one-sided alpha, from the largest distance to the margin down, so that any value is
    called equal though it differs by the margin with probability alpha at most.

    Args:
        effects: the values of one metric, (..., V).
        margin: the difference that doesn't matter, in the metric's unit, > 0.
        alpha: probability of any false claim.

    Returns:
        (..., V)
    """
    order, keys, scale = _ordered(effects, margin)
    limits = _limits(effects, order, scale, min(2 * alpha, 1.0))
    shown = np.logical_and.accumulate(keys > limits, axis=-1)
    return np.take_along_axis(shown, np.argsort(order, axis=-1), axis=-1)


def metric_shares(metrics: Sequence[str], primary_share: float = PRIMARY_SHARE) -> dict[str, float]:
    """Parts of the error rate: most of it for the first metric, the rest in equal parts.

    Args:
        metrics: those that are judged, the most telling first.
        primary_share: part of the first one, 0 < share < 1.
    """
    if len(metrics) < 2:
        return dict.fromkeys(metrics, 1.0)
    rest = (1 - primary_share) / (len(metrics) - 1)
    return {name: rest if place else primary_share for place, name in enumerate(metrics)}


def metric_levels(
    families: Mapping[str, Effects], shares: Mapping[str, float], alpha: float = ALPHA
) -> dict[str, float]:
    """Error rate at which each metric is tested, over all metrics together alpha.

    A metric in which every value was shown has spent nothing: its part goes to the others, as in
    Holm's procedure with weights.

    Args:
        families: name of a metric -> its values, (V,).
        shares: name of a metric -> its part of the error rate; they sum to 1.
        alpha: probability of any false verdict in the report.

    Returns:
        Name of a metric -> level for `decide`.
    """
    levels = {name: alpha * shares[name] for name in families}
    still_open = set(families)
    while True:
        done = {name for name in still_open if decide(families[name], levels[name]).shown.all()}
        if not done or done == still_open:
            return levels
        still_open -= done
        total = sum(shares[name] for name in still_open)
        levels |= {name: alpha * shares[name] / total for name in still_open}


def look_levels(looks: Sequence[int], alpha: float = ALPHA) -> tuple[float, ...]:
    """Error rate of each look when seeds are added round by round; together alpha.

    alpha t^power of the error is spent when the share t of the seeds was seen (Kim and DeMets 1987,
    Biometrika 74, 149-154). The parts are added up as if the looks had nothing in common, which
    holds for any rule of stopping.

    Args:
        looks: seeds at each look, ascending; the last one is the most that a value may get.
        alpha: probability of any false verdict over all looks.

    Raises:
        ValueError: looks that don't ascend, or none.
    """
    if not looks or any(a >= b for a, b in pairwise(looks)):
        raise ValueError(f"looks must ascend, got {list(looks)}")
    spent = [0.0, *(alpha * (seeds / looks[-1]) ** SPENDING_POWER for seeds in looks)]
    return tuple(after - before for before, after in pairwise(spent))


def critical(alpha: Array, df: Array, df_all: Array, values: int) -> Array:
    """Factor on the largest standard error of a family.

    Student's quantile, which is exact when one value's variance exceeds those of all the others;
    with many degrees of freedom the largest of several variances isn't much larger than one of
    them, and the quantile for ``values`` equal ones takes over.

    Args:
        alpha: two-sided error rate of the family, (V,).
        df: degrees of freedom of the part, (V,).
        df_all: degrees of freedom of both parts together, (V,).
        values: how many stand in the family.
    """
    student = stats.t.isf(alpha / 2, df)
    if values < 2:
        return np.asarray(student)
    several = [_quantile(*one, values) for one in zip(alpha, df_all, strict=True)]
    return np.asarray(np.maximum(student, several))


def _ordered(
    effects: Effects, margin: float | None = None
) -> tuple[NDArray[np.int64], Array, Array]:
    """The values from the largest difference (distance to the margin) down.

    Returns:
        Their order, the differences in units of ``scale`` in this order, and the scale.
    """
    fixed = effects.fixed
    scale = np.where(fixed, 1.0, np.sqrt(effects.rest))
    usable = (np.isfinite(scale) & (scale > 0)).all(axis=-1, keepdims=True)
    scale = np.where(usable, scale, 1.0)
    distance = np.abs(effects.effect)
    if margin is not None:
        distance = margin - distance
    keys = np.where(fixed & (distance > 0), np.inf, distance / scale)
    order = np.argsort(-keys, axis=-1, kind="stable")
    return order, np.take_along_axis(keys, order, axis=-1), scale


def _limits(effects: Effects, order: NDArray[np.int64], scale: Array, alpha: float) -> Array:
    """The bound at each step of the test, in units of the scale, (..., V)."""
    steps = [_limit(effects, order, scale, step, alpha) for step in range(len(effects))]
    return np.stack(steps, axis=-1) if steps else np.empty(order.shape)


def _limit(
    effects: Effects, order: NDArray[np.int64], scale: Array, step: int, alpha: float
) -> Array:
    """The largest bound among the values from this step on, in units of the scale, (...)."""
    df_all = effects.df_seed + effects.df_cluster
    count = len(effects) - step
    # Values of one seed share the base's variance: the largest of them is as small by luck as one.
    level = np.where(effects.seeds == 1, alpha / count, alpha)
    seed = critical(level, effects.df_seed, df_all, count)
    cluster = critical(level, effects.df_cluster, df_all, count)
    bounds = np.sqrt(seed**2 * effects.seed + cluster**2 * effects.cluster) / scale
    return np.asarray(np.take_along_axis(bounds, order[..., step:], axis=-1).max(axis=-1))


def _quantile(alpha: float, df: float, values: int) -> float:
    """C with P(max |Z| > c max S) = alpha, for so many values of equal variance."""
    tails = _tails(round(df), values)
    return float(np.interp(-np.log(alpha), -np.log(tails), _GRID))


@lru_cache(maxsize=256)
def _tails(df: int, values: int) -> Array:
    """P(max |Z| > c max S) for each c of the grid.

    Z are independent standard normals, S independent roots of chi-square / df, and the integral
    runs over the distribution of max S.
    """
    points = (np.arange(_POINTS) + 0.5) / _POINTS
    share, weight = points**4, 4 * points**3 / _POINTS  # dense where max S is small
    largest = np.sqrt(stats.chi2.ppf(share ** (1 / values), df) / df)  # (Q,)
    inside = np.log1p(-2 * stats.norm.sf(_GRID[:, None] * largest))  # (G, Q)
    with np.errstate(under="ignore"):
        tails = -np.expm1(values * inside) @ weight
    return np.maximum(np.minimum(tails, 1.0), np.finfo(float).tiny)
