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
its error with it (closed testing: Marcus, Peritz and Gabriel 1976, Biometrika 63, 655-660). A value
that varies wildly would blind all others: a fifth of the error rate goes first to the bounds of the
values by themselves, corrected by Holm's procedure (1979, Scandinavian Journal of Statistics 6,
65-70). Chosen by simulation, docs/verdicts.md.

Shapes: V values, ``...`` further axes.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lora_lab.statistics.crossed import Array, Effects

Name = TypeVar("Name", bound=Hashable)

ALPHA = 0.05
"""Share of studies without any difference that may show one."""
PRIMARY_SHARE = 0.8
"""Part of the error rate that the first metric of a report gets; the others share what is left."""
OWN_SHARE = 0.2
"""Part of a metric's error rate that is spent on the bounds of the values by themselves."""
EARLY_SHARE = 0.1
"""Part of the error rate that `study.early_end` spends; the verdicts at the end get the rest."""
SPENDING_POWER = 1.0
"""alpha(t) = alpha t^power of the error is spent when the share t of the seeds was seen."""
LOOK_GROWTH = 1.6
"""Each look sees so many times the seeds of the one before."""
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
    """Test all values of one metric with an error rate of alpha for all of them together.

    Args:
        effects: The values of one metric, (..., V).
        alpha: Probability of any false verdict.
    """
    return _test(effects, np.abs(effects.effect), alpha)


def p_values(effects: Effects) -> Array:
    """The smallest error rate at which each value by itself is shown to differ, (V,).

    Not corrected for the other values: that is what `decide` does.
    """
    low, high = np.full(len(effects), np.log(_SMALLEST_P)), np.zeros(len(effects))
    for _ in range(50):
        middle = (low + high) / 2
        shown = np.abs(effects.effect) > _bounds(effects, *_students(effects, np.exp(middle)))
        low, high = np.where(shown, low, middle), np.where(shown, middle, high)
    return np.asarray(np.exp(high))


def equivalent(effects: Effects, margin: float, alpha: float = ALPHA) -> NDArray[np.bool_]:
    """Which values are as good as the base: two one-sided tests within a margin.

    Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15, 657-680; with the bound of
    `decide` at one-sided alpha, from the largest distance to the margin down, so that any value is
    called equal though it differs by the margin with probability alpha at most.

    Args:
        effects: The values of one metric, (..., V).
        margin: The difference that doesn't matter, in the metric's unit, > 0.
        alpha: Probability of any false claim.

    Returns:
        (..., V)
    """
    return _test(effects, margin - np.abs(effects.effect), min(2 * alpha, 1.0)).shown


def metric_shares(metrics: Sequence[str], primary_share: float = PRIMARY_SHARE) -> dict[str, float]:
    """Parts of the error rate: most of it for the first metric, the rest in equal parts.

    Args:
        metrics: Those that are judged, the most telling first.
        primary_share: Part of the first one, 0 < share < 1.
    """
    if len(metrics) < 2:
        return dict.fromkeys(metrics, 1.0)
    rest = (1 - primary_share) / (len(metrics) - 1)
    return {name: rest if place else primary_share for place, name in enumerate(metrics)}


def metric_levels(
    families: Mapping[Name, Effects], shares: Mapping[Name, float], alpha: float = ALPHA
) -> dict[Name, float]:
    """Error rate at which each metric is tested, over all metrics together alpha.

    A metric in which every value was shown has spent nothing: its part goes to the others, as in
    Holm's procedure with weights.

    Args:
        families: Name of a metric (or of a part of one) -> its values, (V,).
        shares: The same name -> its part of the error rate; they sum to 1.
        alpha: Probability of any false verdict in the report.

    Returns:
        The same name -> level for `decide`.
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


def look_counts(first: int, most: int | None) -> tuple[int, ...]:
    """Seeds at each look when undecided values get more of them: 3, 5, 8, 13.

    Args:
        first: Seeds that all values start with.
        most: Seeds that a value gets at most; None: no more than at first.

    Returns:
        Ascending, each about 1.6 times the one before, so that few looks share the error rate.
    """
    looks = [first]
    while most is not None and looks[-1] < most:
        after = math.ceil(LOOK_GROWTH * looks[-1])
        looks.append(most if after + 1 >= most else after)
    return tuple(looks)


def look_levels(looks: Sequence[int], alpha: float = ALPHA) -> tuple[float, ...]:
    """Error rate of each look when seeds are added round by round; together alpha.

    alpha t^power of the error is spent when the share t of the seeds was seen (Kim and DeMets 1987,
    Biometrika 74, 149-154). The parts are added up as if the looks had nothing in common, which
    holds for any rule of stopping.

    Args:
        looks: Seeds at each look, ascending; the last one is the most that a value may get.
        alpha: Probability of any false verdict over all looks.

    Raises:
        ValueError: Looks that don't ascend, or none.
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
        alpha: Two-sided error rate of the family, (V,).
        df: Degrees of freedom of the part, (V,).
        df_all: Degrees of freedom of both parts together, (V,).
        values: How many stand in the family.
    """
    student = stats.t.isf(alpha / 2, df)
    if values < 2:
        return np.asarray(student)
    several = np.empty_like(student)
    for one in np.unique(df_all):
        places = df_all == one
        several[places] = _quantiles(alpha[places], round(one), values)
    return np.asarray(np.maximum(student, several))


def _test(effects: Effects, distance: Array, alpha: float) -> Decisions:
    """Which distances exceed their bounds: first each value by itself, then all together.

    A value that the first part shows leaves the family of the second; a false verdict of either
    part has its own share of the error rate.
    """
    if not len(effects):
        return Decisions(np.zeros(effects.effect.shape, bool), np.zeros(effects.effect.shape))
    if len(effects) == 1:
        width = _bounds(effects, *_students(effects, np.full(1, alpha)))
        return Decisions(distance > width, width)
    alone, own = _test_alone(effects, distance, alpha * OWN_SHARE)
    shown, together = _test_together(effects, distance, alone, alpha * (1 - OWN_SHARE))
    return Decisions(shown, np.minimum(own, together))


def _test_alone(effects: Effects, distance: Array, alpha: float) -> tuple[NDArray[np.bool_], Array]:
    """Holm's procedure over the bounds of the values by themselves: which are shown, and bounds."""
    values = len(effects)
    # Factors for each number of values that are left, (V + 1, V); row 0 is never used.
    levels = alpha / np.maximum(np.arange(values + 1), 1)[:, None] * np.ones(values)
    seed, cluster = _students(effects, levels)
    shown = np.zeros(distance.shape, bool)
    width = np.full(distance.shape, np.inf)
    while True:
        left = values - shown.sum(axis=-1)
        bounds = _bounds(effects, seed[left], cluster[left])
        width = np.where(shown, width, bounds)
        more = ~shown & (distance > bounds)
        if not more.any():
            return shown, width
        shown |= more


def _test_together(
    effects: Effects, distance: Array, alone: NDArray[np.bool_], alpha: float
) -> tuple[NDArray[np.bool_], Array]:
    """The largest bound for all values, from the largest distance down; some are shown already."""
    fixed = effects.fixed
    scale = np.where(fixed, 1.0, np.sqrt(effects.rest))
    usable = (np.isfinite(scale) & (scale > 0)).all(axis=-1, keepdims=True)
    scale = np.where(usable, scale, 1.0)
    keys = np.where(alone | (fixed & (distance > 0)), np.inf, distance / scale)
    order = np.argsort(-keys, axis=-1, kind="stable")
    keys = np.take_along_axis(keys, order, axis=-1)
    limits = _limits(effects, order, scale, alpha)
    ahead = np.logical_and.accumulate(keys > limits, axis=-1)  # shown, from the largest down
    # An open value is held against the bound at which the test stopped.
    first_open = np.minimum(ahead.sum(axis=-1, keepdims=True), len(effects) - 1)
    limits = np.where(ahead, limits, np.take_along_axis(limits, first_open, axis=-1))
    back = np.argsort(order, axis=-1)
    width = np.where(fixed, 0.0, np.take_along_axis(limits, back, axis=-1) * scale)
    return np.take_along_axis(ahead, back, axis=-1), width


def _limits(effects: Effects, order: NDArray[np.int64], scale: Array, alpha: float) -> Array:
    """The largest bound from each step of the test on, in units of the scale, (..., V)."""
    values = len(effects)
    df_all = effects.df_seed + effects.df_cluster
    limits = np.empty(order.shape)
    for step in range(values):
        count = values - step
        # Values of one seed share the base's variance: the largest is as small by luck as one.
        level = np.where(effects.seeds == 1, alpha / count, alpha)
        seed = critical(level, effects.df_seed, df_all, count)
        cluster = critical(level, effects.df_cluster, df_all, count)
        bounds = _bounds(effects, seed, cluster) / scale
        limits[..., step] = np.take_along_axis(bounds, order[..., step:], axis=-1).max(axis=-1)
    return limits


def _students(effects: Effects, alpha: Array) -> tuple[Array, Array]:
    """Student's quantiles of both parts, two-sided."""
    return (
        np.asarray(stats.t.isf(alpha / 2, effects.df_seed)),
        np.asarray(stats.t.isf(alpha / 2, effects.df_cluster)),
    )


def _bounds(effects: Effects, seed: Array, cluster: Array) -> Array:
    """Banerjee's bound with a factor for each part, (..., V)."""
    return np.asarray(np.sqrt(seed**2 * effects.seed + cluster**2 * effects.cluster))


def _quantiles(alpha: Array, df: int, values: int) -> Array:
    """C with P(max |Z| > c max S) = alpha, for so many values of equal variance or a few more."""
    tails = _tails(df, values if values <= 8 else -(-values // 8) * 8)
    return np.asarray(np.interp(-np.log(alpha), -np.log(tails), _GRID))


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
