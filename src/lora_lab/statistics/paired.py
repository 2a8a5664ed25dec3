"""Scores of two runs, unit by unit and cluster by cluster.

Scores of one prompt (or of one held-out image) resemble each other: a cluster is a prompt or a
held-out image, a unit is an image seed or a timestep in it.
"""

import math
from collections.abc import Mapping

import numpy as np

Scores = Mapping[tuple[str, str], float]
"""(cluster, unit) -> score."""


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
