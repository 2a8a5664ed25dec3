"""One metric of all values against the base: the decision of docs/verdicts.md."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lora_lab.statistics.curves import sample_sd
from lora_lab.statistics.paired import (
    ALPHA,
    MIN_CLUSTERS,
    Array,
    Bootstrap,
    Scores,
    cluster_bootstrap,
    detectable_difference,
    floor_factor,
    holm,
    holm_levels,
    mean_of,
    mean_scores,
    paired_clusters,
)
from lora_lab.study.judge.metric_results import Kind, Metric, MetricResult

ROUNDING = 1e-6
"""A floor below this share of the metric is rounding, not training."""


@dataclass(frozen=True)
class Candidate:
    """A value's run that may be judged."""

    run: str
    value: str
    scores: Scores


@dataclass(frozen=True)
class BaseScores:
    """The base's seeds in one metric."""

    seeds: tuple[Scores, ...]
    mean: Scores
    sd: float
    """Standard deviation between the seeds; NaN when it can't be told."""
    reason: str = ""
    """Why there is no floor; empty when there is one."""

    @property
    def threshold(self) -> float:
        """What a difference must exceed."""
        return math.nan if self.reason else floor_factor(len(self.seeds)) * self.sd


def base_scores(seeds: Sequence[Scores], least_sd: float = 0.0) -> BaseScores:
    """Mean and noise floor of the base's seeds in one metric.

    Args:
        seeds: scores of each base run that has the metric.
        least_sd: a floor known from elsewhere; the larger of the two is taken.
    """
    measured = tuple(scores for scores in seeds if scores)
    mean = mean_scores(list(measured))
    if len(measured) < 2:
        runs = "one base run" if measured else "no base run"
        return BaseScores(measured, mean, math.nan, f"{runs} has this metric, two are needed")
    # Over what all seeds measured: a missing image must not look like a difference between seeds.
    means = [mean_of({key: scores[key] for key in mean}) for scores in measured]
    sd = max(sample_sd(np.array(means)), least_sd)
    if not sd > ROUNDING * abs(float(np.mean(means))):
        return BaseScores(
            measured,
            mean,
            math.nan,
            "the base runs of all seeds end alike, as if nothing was learned",
        )
    return BaseScores(measured, mean, sd)


def judge_metric(
    metric: Metric, base: BaseScores, candidates: Sequence[Candidate]
) -> dict[str, MetricResult]:
    """Judges every value in one metric.

    Args:
        metric: which one.
        base: the base's seeds.
        candidates: the values' runs.

    Returns:
        Name of the run -> result, for the candidates that were measured in the metric.
    """
    base_mean = mean_of(base.mean)
    results: dict[str, MetricResult] = {}
    paired: dict[str, dict[str, float]] = {}
    for one in candidates:
        if not one.scores:
            continue
        paired[one.run] = paired_clusters(one.scores, base.mean)
        results[one.run] = MetricResult(
            value=one.value,
            run=one.run,
            metric=metric.name,
            verdict=Kind.NOT_RANKED,
            mean=mean_of(one.scores),
            base_mean=base_mean,
            floor=base.sd,
            threshold=base.threshold,
            clusters=len(paired[one.run]),
            seeds=len(base.seeds),
            reason=base.reason or _too_few(metric, len(paired[one.run])),
        )
    ranked = {name: paired[name] for name, result in results.items() if not result.reason}
    return results | _decide(metric, base, {name: results[name] for name in ranked}, ranked)


def _too_few(metric: Metric, clusters: int) -> str:
    if clusters >= MIN_CLUSTERS:
        return ""
    kind = "held-out images" if metric.cluster == "image" else "prompts"
    return f"{clusters} {kind} were measured in both, an interval needs {MIN_CLUSTERS}"


def _decide(
    metric: Metric,
    base: BaseScores,
    results: Mapping[str, MetricResult],
    paired: Mapping[str, Mapping[str, float]],
) -> dict[str, MetricResult]:
    """Bootstrap, Holm and floor for the values that can be judged."""
    if not results:
        return {}
    mean, error, p, boots = _bootstrap(paired)
    levels, adjusted = holm_levels(p), holm(p)
    widths = np.concatenate([boot.half_width(levels[places]) for places, boot in boots])[
        np.argsort(np.concatenate([places for places, _ in boots]))
    ]
    decided = {}
    for index, (name, result) in enumerate(results.items()):
        limit = max(float(widths[index]), base.threshold)
        shown = adjusted[index] <= ALPHA and abs(mean[index]) > base.threshold
        lower = mean[index] < 0
        decided[name] = replace(
            result,
            difference=float(mean[index]),
            low=float(mean[index] - widths[index]),
            high=float(mean[index] + widths[index]),
            p=float(p[index]),
            p_holm=float(adjusted[index]),
            mdd=detectable_difference(limit, float(error[index]), base.sd, result.seeds),
            verdict=(Kind.BETTER if lower == metric.lower_is_better else Kind.WORSE)
            if shown
            else Kind.NONE_SHOWN,
        )
    return decided


def _bootstrap(
    paired: Mapping[str, Mapping[str, float]],
) -> tuple[Array, Array, Array, list[tuple[Array, Bootstrap]]]:
    """Resamples values that were measured on the same clusters together."""
    groups: dict[tuple[str, ...], list[int]] = {}
    rows = list(paired.values())
    for index, row in enumerate(rows):
        groups.setdefault(tuple(sorted(row)), []).append(index)
    mean, error, p = (np.empty(len(rows)) for _ in range(3))
    boots = []
    for clusters, places in groups.items():
        differences = np.array([[rows[i][cluster] for cluster in clusters] for i in places])
        boot = cluster_bootstrap(differences)
        mean[places], error[places], p[places] = boot.mean, boot.standard_error, boot.p
        boots.append((np.array(places), boot))
    return mean, error, p, boots
