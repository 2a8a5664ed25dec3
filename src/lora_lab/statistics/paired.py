"""From paired scores to a decision: clustered bootstrap, Holm, noise floor, detectable difference.

Scores of one prompt (or of one held-out image) resemble each other, so prompts are drawn, not
images: a cluster is a prompt or a held-out image, a unit is an image seed or a timestep in it.

Shapes: V values of the parameter under study, C clusters, B bootstrap resamples, M p-values.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]
Scores = Mapping[tuple[str, str], float]
"""(cluster, unit) -> score."""

ALPHA = 0.05
"""Share of comparisons without a difference that may be called different."""
POWER = 0.8
"""How likely a study shows a difference of the size that it calls detectable."""
MIN_CLUSTERS = 5
"""With fewer clusters a resample often holds one alone, and no interval is to be had."""
MIN_FACTOR = 2.0
"""A difference must exceed at least so many standard deviations between the base's seeds."""
RESAMPLES = 10_000
RESAMPLES_A_VALUE = 100
"""The tail of Holm's first level gets thinner with each value and needs more resamples."""
ROUNDING = 1e-12
"""A standard error below this share of the mean is rounding."""
_CHUNK = 2**22  # numbers of one step of the vectorised bootstrap: 32 MB


def mean_scores(runs: list[Scores]) -> dict[tuple[str, str], float]:
    """Mean over several runs (the base's seeds) of every unit that all of them measured."""
    if not runs:
        return {}
    shared = set(runs[0]).intersection(*runs[1:])
    means = {key: float(np.mean([scores[key] for scores in runs])) for key in sorted(shared)}
    return {key: mean for key, mean in means.items() if math.isfinite(mean)}


def cluster_means(scores: Scores) -> dict[str, float]:
    """Mean over the units of each cluster, so that every prompt weighs the same."""
    units: dict[str, list[float]] = {}
    for (cluster, _), score in sorted(scores.items()):
        if math.isfinite(score):
            units.setdefault(cluster, []).append(score)
    return {cluster: float(np.mean(values)) for cluster, values in units.items()}


def mean_of(scores: Scores) -> float:
    """Mean over the clusters; NaN when nothing was measured."""
    means = cluster_means(scores)
    return float(np.mean(list(means.values()))) if means else math.nan


def paired_clusters(value: Scores, base: Scores) -> dict[str, float]:
    """Mean difference value - base of each cluster over the units that both measured."""
    shared = {key: value[key] - base[key] for key in value.keys() & base.keys()}
    return cluster_means(shared)


@dataclass(frozen=True)
class Bootstrap:
    """What resampling the clusters says of the mean differences of V values."""

    mean: Array
    """(V,)"""
    standard_error: Array
    """(V,)"""
    p: Array
    """Two-sided p-value of a mean of 0, (V,)."""
    ratios: Array
    """|resampled mean - mean| / its standard error, (V, B)."""

    def half_width(self, levels: Array) -> Array:
        """Half the width of the interval at 1 - level of each value.

        Args:
            levels: error probability of each value's interval, (V,).

        Returns:
            (V,); infinite where a resample of the tail holds one cluster alone.
        """
        count = self.ratios.shape[1]
        ranks = np.minimum(np.ceil((1 - levels) * (count + 1)).astype(int) - 1, count - 1)
        quantiles = np.array(
            [np.partition(row, rank)[rank] for row, rank in zip(self.ratios, ranks, strict=True)]
        )
        with np.errstate(invalid="ignore"):
            width = quantiles * self.standard_error
        return np.where(self.standard_error == 0, 0.0, width)


def cluster_bootstrap(differences: Array, seed: int = 0) -> Bootstrap:
    """Symmetric bootstrap-t interval of the mean difference, resampling clusters.

    The studentised bootstrap (Efron 1982, ch. 10; symmetric form: Hall 1988, Annals of Statistics
    16, 927-953) holds its level with the eight to twelve clusters of a study, where the percentile
    interval is too narrow. All values are resampled with the same clusters.

    Args:
        differences: mean difference of each cluster, (V, C); no NaN, C >= 2.
        seed: of the resampling.
    """
    values, clusters = differences.shape
    count = max(RESAMPLES, RESAMPLES_A_VALUE * values)
    drawn = np.random.default_rng(seed).multinomial(clusters, [1 / clusters] * clusters, size=count)
    weights = drawn / clusters  # (B, C)
    mean = differences.mean(axis=1)
    error = differences.std(axis=1, ddof=1) / math.sqrt(clusters)
    error[error <= ROUNDING * np.abs(mean)] = 0.0
    ratios = np.empty((values, count), np.float32)
    for start in range(0, values, max(1, _CHUNK // count)):
        part = slice(start, start + max(1, _CHUNK // count))
        ratios[part] = _ratios(differences[part] - mean[part, None], weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = np.where(mean == 0, 0.0, np.abs(mean) / error).astype(np.float32)
    extreme = (ratios >= observed[:, None]).sum(axis=1)
    extreme[(error == 0) & (mean != 0)] = 0
    extreme[mean == 0] = count
    return Bootstrap(mean, error, (extreme + 1) / (count + 1), ratios)


def _ratios(centred: Array, weights: Array) -> Array:
    """|shift of the mean| / its standard error in every resample.

    Args:
        centred: differences without their mean, (V, C).
        weights: share of each cluster in a resample, (B, C).

    Returns:
        (V, B); infinite where a resample holds one cluster alone.
    """
    shift = centred @ weights.T
    variance = np.maximum(centred**2 @ weights.T - shift**2, 0.0)
    errors = np.sqrt(variance / (centred.shape[1] - 1))
    shift = np.abs(shift)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = shift / errors
    ratio[errors <= ROUNDING * shift] = np.inf
    ratio[shift == 0] = 0.0
    return ratio


def holm(p: Array) -> Array:
    """Holm's adjusted p-values (Holm 1979, Scandinavian Journal of Statistics 6, 65-70).

    Args:
        p: p-values of one family, (M,).

    Returns:
        The smallest error rate of the whole family at which each is rejected, (M,).
    """
    order = np.argsort(p, kind="stable")
    factors = len(p) - np.arange(len(p))
    adjusted = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    result = np.empty(len(p))
    result[order] = adjusted
    return result


def holm_levels(p: Array, alpha: float = ALPHA) -> Array:
    """Error probability of each value's own interval so that the intervals agree with Holm.

    The interval at 1 - level excludes 0 exactly where Holm rejects: level alpha / (M - rank) while
    Holm still rejects, and the level at which it stopped for all after that.

    Args:
        p: p-values of one family, (M,).
        alpha: error rate of the whole family.

    Returns:
        (M,)
    """
    order = np.argsort(p, kind="stable")
    thresholds = alpha / (len(p) - np.arange(len(p)))
    kept = np.flatnonzero(p[order] > thresholds)
    if len(kept):
        thresholds[kept[0] :] = thresholds[kept[0]]
    levels = np.empty(len(p))
    levels[order] = thresholds
    return levels


def floor_factor(seeds: int, alpha: float = ALPHA) -> float:
    """How many standard deviations of the base's seeds a difference must exceed.

    A run that differs from the base in nothing but its seed lies outside mean +- factor * sd of the
    seeds with probability alpha: Student's prediction interval for one new observation (Hahn 1969,
    Journal of the American Statistical Association 64, 878-888), at least twice the deviation.

    Args:
        seeds: runs of the base, >= 2.
        alpha: error probability.
    """
    quantile = float(stats.t.ppf(1 - alpha / 2, seeds - 1))
    return max(MIN_FACTOR, quantile * math.sqrt(1 + 1 / seeds))


def detectable_difference(limit: float, error: float, sd: float, seeds: int) -> float:
    """The true difference that a study like this one shows with probability 0.8.

    Args:
        limit: what the measured difference must exceed.
        error: standard error of the difference over the clusters.
        sd: standard deviation between the base's seeds.
        seeds: runs of the base.

    Returns:
        limit + z(0.8) * standard deviation of the measured difference.
    """
    spread = math.sqrt(error**2 + sd**2 * (1 + 1 / seeds))
    return limit + float(stats.norm.ppf(POWER)) * spread
