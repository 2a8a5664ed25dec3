"""Which runs of a value stand against which of the base, and their scores as crossed tables."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lora_lab.config.metrics import Metric
from lora_lab.statistics.crossed import (
    MIN_CLUSTERS,
    Array,
    Effects,
    crossed_effects,
    measured_part,
    one_seed_effect,
)
from lora_lab.statistics.paired import Scores, cluster_means, mean_of, mean_scores, paired_clusters
from lora_lab.study.judge.comparable import compare
from lora_lab.study.read.load import Run

ROUNDING = 1e-6
"""A spread of the base's seeds below this share of the metric is rounding, not training."""


@dataclass(frozen=True)
class Pair:
    """A value's run and the base's run of the same seed."""

    seed: int
    run: Run
    base: Run


@dataclass(frozen=True)
class ValueRuns:
    """The runs of one value that may be judged."""

    value: str
    pairs: tuple[Pair, ...] = ()
    """In the order of the sweep's seeds."""
    alone: Run | None = None
    """A run without a partner in the base, where there is no pair."""
    left_out: tuple[str, ...] = ()
    """Seeds that don't count, and why."""
    reason: str = ""
    """Why nothing can be judged; empty when something can."""
    loss_changed: str = ""
    """Why its losses are of another quantity; empty when they aren't."""

    def under(self, seeds: Sequence[int]) -> "ValueRuns":
        """The same with the pairs of some seeds alone."""
        pairs = tuple(pair for pair in self.pairs if pair.seed in seeds)
        return replace(self, pairs=pairs)


@dataclass(frozen=True)
class Measured:
    """One value in one metric, ready to be judged."""

    effects: Effects | None
    """None where nothing can be said."""
    mean: float = math.nan
    by_seed: tuple[float, ...] = ()
    reason: str = ""
    remark: str = ""


def pair_runs(
    value: str,
    runs: Sequence[Run],
    base: Sequence[Run],
    parameters: tuple[str, ...],
    why_incomplete: Callable[[Run], str],
) -> ValueRuns:
    """Pair the runs of a value with the base's of the same seed; what differs is left out.

    Args:
        value: The value, as written.
        runs: Its runs, one a seed.
        base: Usable runs of the base, the reference first, one a seed.
        parameters: Keys under study.
        why_incomplete: One sentence on a run that isn't complete.
    """
    partners = {run.seed: run for run in base}
    pairs: dict[int, Pair] = {}
    alone: list[Run] = []
    left_out, loss_changed = [], ""
    twice: list[str] = []
    for run in runs:
        partner = partners.get(run.seed, base[0])
        obstacles: tuple[str, ...] = () if run.complete else (why_incomplete(run),)
        if run.complete:
            comparability = compare(run, partner, parameters)
            obstacles = comparability.obstacles
            loss_changed = loss_changed or comparability.loss_changed
        if obstacles:
            left_out.append((run, "; ".join(obstacles)))
        elif run.seed is not None and run.seed in pairs:
            twice.append(f"a second run under seed {run.seed} left out: {run.name}")
        elif run.seed is not None and run.seed in partners:
            pairs[run.seed] = Pair(run.seed, run, partner)
        else:
            alone.append(run)
    if not pairs and not alone:
        # One reason for all seeds is told without naming them.
        reasons = list(dict.fromkeys(reason for _, reason in left_out))
        return ValueRuns(value, reason="; ".join(reasons) or "no run of this value was found")
    told = tuple(f"seed {run.seed} left out: {reason}" for run, reason in left_out)
    told += tuple(twice)
    if pairs:
        told += tuple(f"seed {run.seed} left out: no base run of this seed" for run in alone)
    return ValueRuns(
        value, tuple(pairs.values()), None if pairs else alone[0], told, "", loss_changed
    )


def measure_value(value: ValueRuns, metric: Metric, base: Sequence[Run]) -> Measured | None:
    """The effect of a value in one metric and the parts of its error.

    With two pairs or more it is measured under each seed; with one it is held against the spread
    of the base's seeds.

    Args:
        value: Its runs.
        metric: Which one.
        base: Usable runs of the base.

    Returns:
        None when no run of the value was measured in the metric.
    """
    name = metric.name
    if value.loss_changed and metric.is_loss:
        runs = [pair.run for pair in value.pairs] or ([value.alone] if value.alone else [])
        scores = [run.scores[name] for run in runs if run.scores.get(name)]
        return Measured(None, _mean(scores), reason=value.loss_changed) if scores else None
    pairs = [p for p in value.pairs if p.run.scores.get(name) and p.base.scores.get(name)]
    if len(pairs) >= 2:
        return _measure_pairs(pairs, metric, value)
    run = pairs[0].run if pairs else value.alone
    if run is None or not run.scores.get(name):
        return None
    of_base = [one.scores[name] for one in base if one.scores.get(name)]
    return _measure_alone(run, pairs, metric, of_base)


def _measure_pairs(pairs: Sequence[Pair], metric: Metric, value: ValueRuns) -> Measured:
    name = metric.name
    rows = [paired_clusters(pair.run.scores[name], pair.base.scores[name]) for pair in pairs]
    table = measured_part(_table(rows))
    mean = _mean([pair.run.scores[name] for pair in pairs])
    if table.size == 0 or table.shape[1] < MIN_CLUSTERS:
        return Measured(None, mean, reason=_too_few(metric, table.shape[1]))
    if len(table) < 2:
        return Measured(None, mean, reason="fewer than two seeds measured the same images")
    effects = crossed_effects(table[None])
    remarks = list(value.left_out)
    if effects.identical.all():
        remarks.append("every score is identical to the base's: nothing changed")
    by_seed = tuple(float(one) for one in table.mean(axis=1))
    return Measured(effects, mean, by_seed, remark="; ".join(remarks))


def _measure_alone(
    run: Run, pairs: Sequence[Pair], metric: Metric, base: Sequence[Scores]
) -> Measured:
    """One run against all seeds of the base."""
    scores = run.scores[metric.name]
    mean = mean_of(scores)
    if len(base) < 2:
        runs = "one base run" if base else "no base run"
        return Measured(
            None, mean, reason=f"{runs} has this metric; two seeds are needed (study.seeds=3)"
        )
    shared = mean_scores(list(base))
    # Over what all seeds measured: a missing image must not look like a difference between seeds.
    base_means = np.array([mean_of({key: one[key] for key in shared}) for one in base])
    if not base_means.std(ddof=1) > ROUNDING * abs(float(base_means.mean())):
        reason = "the base runs of all seeds end alike, as if nothing was learned"
        return Measured(None, mean, reason=reason)
    differences = paired_clusters(scores, shared)
    if len(differences) < MIN_CLUSTERS:
        return Measured(None, mean, reason=_too_few(metric, len(differences)))
    effects = one_seed_effect(np.array(list(differences.values())), base_means)
    by_seed: tuple[float, ...] = ()
    if pairs:
        own = paired_clusters(scores, pairs[0].base.scores[metric.name])
        by_seed = (float(np.mean(list(own.values()))),) if own else ()
    return Measured(
        effects, mean, by_seed, remark="one seed: held against what another seed does to the base"
    )


def trend_scores(values: Sequence[ValueRuns], metric: Metric) -> Array | None:
    """Scores of the base (first) and of every value under the seeds and clusters that all share.

    Returns:
        (R, K, C) with K >= 2 and C >= 2; None where there are fewer.
    """
    seeds = [set(pair.seed for pair in value.pairs) for value in values]
    shared = sorted(set.intersection(*seeds)) if seeds else []
    if len(shared) < 2:
        return None
    columns = []
    for seed in shared:
        pairs = [next(p for p in value.pairs if p.seed == seed) for value in values]
        runs = [pairs[0].base, *(pair.run for pair in pairs)]
        means = [cluster_means(run.scores.get(metric.name, {})) for run in runs]
        columns.append([_row(one, sorted(set().union(*means))) for one in means])
    clusters = {len(row) for column in columns for row in column}
    if len(clusters) != 1:
        return None
    scores = np.array(columns).transpose(1, 0, 2)  # (R, K, C)
    whole = np.isfinite(scores).all(axis=(0, 1))
    return scores[:, :, whole] if whole.sum() >= MIN_CLUSTERS else None


def _row(means: Mapping[str, float], clusters: Sequence[str]) -> list[float]:
    return [means.get(cluster, math.nan) for cluster in clusters]


def _table(rows: Sequence[Mapping[str, float]]) -> Array:
    """(K, C); NaN where a seed lacks a cluster."""
    clusters = sorted(set().union(*rows))
    return np.array([_row(row, clusters) for row in rows]).reshape(len(rows), len(clusters))


def _mean(scores: Sequence[Scores]) -> float:
    """Mean over runs of their means."""
    return float(np.mean([mean_of(one) for one in scores])) if scores else math.nan


def _too_few(metric: Metric, clusters: int) -> str:
    kind = "held-out image" if metric.cluster == "image" else "prompt"
    plural = " was" if clusters == 1 else "s were"
    return f"{clusters} {kind}{plural} measured in both, a verdict needs {MIN_CLUSTERS}"
