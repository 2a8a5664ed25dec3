"""A value against the base over seeds and clusters: effect, variance parts, standard error.

The difference d[s, c] = value - base under seed s in cluster c (a held-out image, a prompt) is one
entry of a crossed table. A difference must hold over other seeds and over other clusters (Clark
1973, Journal of Verbal Learning and Verbal Behavior 12, 335-359: a language effect must hold over
subjects and over words), so its error has a part from seeds, a part from clusters and a rest.

Shapes: V values of the parameter under study, K seeds, C clusters; ``...`` are further axes, such
as metrics or simulated studies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ROUNDING = 1e-12
"""A variance below this share of the squared entries is rounding."""
MIN_CLUSTERS = 2
"""With one cluster nothing can be said of another one."""


@dataclass(frozen=True)
class Effects:
    """Mean differences of V values and the parts of their error variance, each (..., V)."""

    effect: Array
    """Mean of value - base."""
    seed: Array
    """Mean square between seeds / (K C): what seeds alone say of the variance of the effect."""
    cluster: Array
    """Mean square between clusters / (K C): what clusters alone say of it."""
    rest: Array
    """Mean square of the rest / (K C); NaN where one seed leaves none."""
    df_seed: Array
    """Degrees of freedom of ``seed``, (V,)."""
    df_cluster: Array
    """Degrees of freedom of ``cluster``, (V,)."""
    seeds: NDArray[np.int64]
    """Seeds that value and base share, (V,)."""
    clusters: NDArray[np.int64]
    """Clusters that all of them measured, (V,)."""

    @property
    def variance(self) -> Array:
        """(MS_seed + MS_cluster - MS_rest) / (K C), never less than the larger of the two alone.

        The expected mean squares of two crossed random factors: Satterthwaite 1946, Biometrics
        Bulletin 2, 110-114. NaN in ``rest`` counts as 0.
        """
        rest = np.nan_to_num(self.rest)
        larger = np.maximum(self.seed, self.cluster)
        return np.maximum(self.seed + self.cluster - rest, larger)

    @property
    def standard_error(self) -> Array:
        """Root of the variance."""
        return np.sqrt(self.variance)

    @property
    def df(self) -> Array:
        """Satterthwaite's degrees of freedom; those of the larger part where it stands alone."""
        rest = np.nan_to_num(self.rest)
        total = self.seed + self.cluster - rest
        squares = self.seed**2 / self.df_seed + self.cluster**2 / self.df_cluster
        squares = squares + rest**2 / (self.df_seed * self.df_cluster)
        alone = np.where(self.seed >= self.cluster, self.df_seed, self.df_cluster)
        with np.errstate(invalid="ignore", divide="ignore"):
            mixed = total**2 / squares
        larger = np.maximum(self.seed, self.cluster)
        return np.where((total > larger) & (squares > 0), mixed, alone)

    @property
    def fixed(self) -> NDArray[np.bool_]:
        """Whether every seed and cluster shows the same difference, so that nothing varies."""
        return (self.seed == 0) & (self.cluster == 0)

    @property
    def identical(self) -> NDArray[np.bool_]:
        """Whether value and base agree in every entry."""
        return self.fixed & (self.effect == 0)

    def __len__(self) -> int:
        """Number of values."""
        return int(self.effect.shape[-1])

    def take(self, places: Sequence[int]) -> Effects:
        """Those values alone, in the given order."""
        index = np.asarray(places, int)
        parts = {name: getattr(self, name)[..., index] for name in self.__dataclass_fields__}
        return Effects(**parts)

    def with_seeds(self, seeds: int) -> Effects:
        """What the same values would show with another number of seeds (the same effects).

        The part of the clusters keeps its own variance; the seeds' part and the rest shrink.

        Args:
            seeds: Of value and base, >= 2.
        """
        share = self.seeds / seeds
        rest = np.nan_to_num(self.rest)
        own = np.maximum(self.cluster - rest, 0.0)
        return replace(
            self,
            seed=self.seed * share,
            cluster=np.minimum(own + rest * share, self.cluster * np.maximum(share, 1.0)),
            rest=self.rest * share,
            df_seed=np.full_like(self.df_seed, seeds - 1),
            seeds=np.full_like(self.seeds, seeds),
        )


def stack(effects: Sequence[Effects]) -> Effects:
    """Several values in one, (V,); each part was computed by itself."""
    names = Effects.__dataclass_fields__
    return Effects(
        **{name: np.concatenate([getattr(one, name) for one in effects], axis=-1) for name in names}
    )


def measured_part(differences: Array) -> Array:
    """The table without what is missing.

    Seeds that measured nothing are left out, then clusters that some remaining seed lacks.

    Args:
        differences: One value's table, (K, C); NaN where nothing was measured.

    Returns:
        A table without NaN; (0, 0) when nothing remains.
    """
    measured = np.isfinite(differences)
    table = differences[measured.any(axis=1)]
    table = table[:, np.isfinite(table).all(axis=0)]
    return table if table.size else np.empty((0, 0))


def crossed_effects(differences: Array) -> Effects:
    """Effect and mean squares of complete tables, one a value.

    Args:
        differences: value - base under one seed in one cluster, (..., V, K, C); no NaN, K >= 2 and
            C >= 2.

    Raises:
        ValueError: Fewer than two seeds or clusters.
    """
    *_, values, seeds, clusters = differences.shape
    if seeds < 2 or clusters < MIN_CLUSTERS:
        raise ValueError(f"a crossed table needs 2 seeds and 2 clusters, got {seeds} x {clusters}")
    of_seed = differences.mean(axis=-1)  # (..., V, K)
    of_cluster = differences.mean(axis=-2)  # (..., V, C)
    effect = of_seed.mean(axis=-1)  # (..., V)
    seed = of_seed.var(axis=-1, ddof=1) / seeds
    cluster = of_cluster.var(axis=-1, ddof=1) / clusters
    total = ((differences - effect[..., None, None]) ** 2).sum(axis=(-1, -2))
    entries = seeds * clusters
    df_rest = (seeds - 1) * (clusters - 1)
    between = entries * ((seeds - 1) * seed + (clusters - 1) * cluster)
    rest = np.maximum(total - between, 0.0) / df_rest / entries
    rounding = ROUNDING * (differences**2).mean(axis=(-1, -2))
    seed, cluster, rest = (np.where(part <= rounding, 0.0, part) for part in (seed, cluster, rest))
    count = np.ones(values, int)
    return Effects(
        effect=effect,
        seed=seed,
        cluster=cluster,
        rest=rest,
        df_seed=count * (seeds - 1.0),
        df_cluster=count * (clusters - 1.0),
        seeds=count * seeds,
        clusters=count * clusters,
    )


def one_seed_effect(differences: Array, base_means: Array) -> Effects:
    """A value that was trained once, against all seeds of the base.

    The part of the seeds is that of a prediction interval for one new run (Hahn 1969, Journal of
    the American Statistical Association 64, 878-888): the base's variance times 1 + 1/K. It holds
    what pairing would have taken away: with few seeds it is the price of training a value once.

    Args:
        differences: value - mean over the base's seeds in each cluster, (C,); no NaN, C >= 2.
        base_means: Mean over the clusters of each base run, (K,); K >= 2.

    Raises:
        ValueError: Fewer than two seeds of the base or clusters.
    """
    seeds, clusters = len(base_means), len(differences)
    if seeds < 2 or clusters < MIN_CLUSTERS:
        raise ValueError(f"one seed needs 2 base runs and 2 clusters, got {seeds} x {clusters}")
    one = np.ones(1)
    return Effects(
        effect=one * float(differences.mean()),
        seed=one * float(base_means.var(ddof=1)) * (1 + 1 / seeds),
        cluster=one * float(differences.var(ddof=1)) / clusters,
        rest=one * math.nan,
        df_seed=one * (seeds - 1),
        df_cluster=one * (clusters - 1),
        seeds=np.ones(1, int),
        clusters=np.full(1, clusters),
    )


def trend_weights(places: Array) -> Array:
    """Weights of the runs, base among them, whose sum is the linear trend over a scale.

    The squares of the weights sum to 2, as in the difference of two runs, so that the trend can
    stand in one family with the differences to the base.

    Args:
        places: The values as numbers on the scale, (R,), at least two of them different;
            `scale_of` takes the logarithm where that suits.

    Returns:
        (R,), summing to 0.
    """
    centred = places - places.mean()
    return np.asarray(centred * math.sqrt(2 / float((centred**2).sum())))


def scale_of(values: Array) -> Array:
    """The values on the scale of the trend: their logarithm when they are ranks or rates.

    Positive numbers that span a factor of 4 or more are taken as steps of a factor (dim 2, 8, 32),
    others as they are.

    Args:
        values: Numbers, (R,).
    """
    positive = bool(np.all(values > 0))
    return np.log2(values) if positive and values.max() >= 4 * values.min() else values


def trend_table(scores: Array, places: Array) -> Array:
    """The trend under each seed in each cluster, a table like that of a difference.

    Args:
        scores: Of every run, base among them, (R, K, C).
        places: `scale_of` the runs' values, (R,).

    Returns:
        (K, C)
    """
    return np.asarray(np.tensordot(trend_weights(places), scores, axes=1))
