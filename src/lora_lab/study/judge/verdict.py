"""May one value be called better? The decision, metric by metric and value by value.

Each metric of a value is compared with its mean over the base's seeds, paired by (prompt, image
seed) or (held-out image, timestep). A value is called better or worse only if the interval of the
difference, bootstrapped over prompts and corrected for the number of values, excludes 0 and the
difference exceeds what another seed of the base does; otherwise no difference was shown.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from lora_lab.statistics.curves import last_finite, pooled_sd, sample_sd
from lora_lab.statistics.paired import floor_factor, mean_of
from lora_lab.study.judge.comparable import Comparability, compare, parameters_of
from lora_lab.study.judge.judge_metric import (
    ROUNDING,
    BaseScores,
    Candidate,
    base_scores,
    judge_metric,
)
from lora_lab.study.judge.measure import HELD_OUT, Measures, measure
from lora_lab.study.judge.metric_results import METRICS, Kind, Metric, MetricResult, overall
from lora_lab.study.judge.pair import PairedLoss, pair_loss, seed_sd_of_smoothed_loss
from lora_lab.study.read.load import Run, Sweep

__all__ = ["FACTOR", "Floor", "Judged", "Kind", "Metric", "MetricResult", "Study", "judge"]

FACTOR = 2.0
"""Half the width of the band of the base's seeds in figures, in standard deviations."""
NOT_MEASURED = "neither held-out loss nor image metrics were measured"
FEW_SEEDS = 5
"""With fewer base seeds than this the floor itself is uncertain, and the report says so."""


@dataclass(frozen=True)
class Floor:
    """How far two runs of one config lie apart when only the seed differs."""

    seeds: int
    """Base runs that it was measured on."""
    sd: float
    """Standard deviation of the held-out loss between them; NaN when it can't be told."""
    training_sd: float
    """The same of the smoothed training loss; holds the other noise draws too."""
    reason: str = ""
    """Why there is no floor; empty when there is one."""

    @property
    def threshold(self) -> float:
        """What a difference in held-out loss must exceed."""
        return math.nan if self.reason else floor_factor(self.seeds) * self.sd


@dataclass(frozen=True)
class Judged:
    """A run with its figures and what can be said of it."""

    run: Run
    label: str
    """The value, or the name of a base run."""
    measures: Measures
    kind: Kind
    reason: str = ""
    """Why the run isn't ranked; empty when it is."""
    paired: PairedLoss | None = None
    """Training loss against the base of the same seed."""
    difference: float = math.nan
    """Held-out loss - the mean of the base's seeds (of a base run: - the first one's)."""
    relative: float = math.nan
    """The same as a share of the base's loss."""
    results: tuple[MetricResult, ...] = ()
    """One a metric that was measured, in the order of METRICS."""

    def result(self, metric: str) -> MetricResult | None:
        """The result in one metric; None when it wasn't measured."""
        return next((result for result in self.results if result.metric == metric), None)


@dataclass(frozen=True)
class Study:
    """A sweep with its verdicts, in the order of sweep.json."""

    sweep: Sweep
    parameters: tuple[str, ...]
    base: Judged | None
    """The base run that the others are shown against; None when none was trained to its end."""
    floor: Floor
    judged: tuple[Judged, ...]
    metrics: tuple[Metric, ...] = ()
    """Those that any run was measured in."""

    @property
    def values(self) -> tuple[Judged, ...]:
        """The runs of the values, without the base's."""
        return tuple(one for one in self.judged if not one.run.is_base)


def judge(sweep: Sweep) -> Study:
    """Measures and judges every run of a sweep."""
    parameters = parameters_of(sweep.parameter)
    reference = next((run for run in sweep.base_runs if run.complete), None)
    seeds = _usable_base_runs(sweep, reference)
    floor = noise_floor(seeds)
    table = _judge_metrics(sweep, reference, seeds, parameters, floor)
    judged = []
    for run in sweep.runs:
        if run.is_base or reference is None:
            one = _show(run, reference)
        else:
            one = _judge(run, reference, parameters, sweep, table.get(run.name, ()))
        judged.append(replace(one, results=table.get(run.name, ())))
    base = next((one for one in judged if one.run is reference), None)
    measured = {result.metric for one in judged for result in one.results}
    metrics = tuple(metric for metric in METRICS if metric.name in measured)
    return Study(sweep, parameters, base, floor, tuple(judged), metrics)


def _judge_metrics(
    sweep: Sweep,
    reference: Run | None,
    seeds: tuple[Run, ...],
    parameters: tuple[str, ...],
    floor: Floor,
) -> dict[str, tuple[MetricResult, ...]]:
    """Name of a run -> its results, one a metric."""
    found: dict[str, list[MetricResult]] = {run.name: [] for run in sweep.runs}
    for metric in METRICS:
        late = floor.sd if metric.name == "held_out_loss" and not floor.reason else 0.0
        base = base_scores([run.scores.get(metric.name, {}) for run in seeds], late)
        judged = judge_metric(
            metric, base, _candidates(sweep, reference, parameters, metric) if reference else ()
        )
        for run in sweep.runs:
            if run.name in judged:
                found[run.name].append(judged[run.name])
            elif run.scores.get(metric.name):
                found[run.name].append(_unranked(run, metric, base))
    return {name: tuple(results) for name, results in found.items()}


def _candidates(
    sweep: Sweep, reference: Run, parameters: tuple[str, ...], metric: Metric
) -> list[Candidate]:
    """The runs of values that may be ranked in a metric."""
    candidates = []
    for run in sweep.runs:
        if run.is_base or not run.complete or same_value(run.value, sweep.base_value):
            continue
        comparability = compare(run, reference, parameters)
        comparable = not comparability.obstacles
        if metric.name == "held_out_loss":
            comparable = comparability.ranked
        if comparable:
            candidates.append(Candidate(run.name, run.value, run.scores.get(metric.name, {})))
    return candidates


def _unranked(run: Run, metric: Metric, base: BaseScores) -> MetricResult:
    """A run that is shown in a metric and not judged: the base's, or one that can't be ranked."""
    return MetricResult(
        value=run.value,
        run=run.name,
        metric=metric.name,
        verdict=Kind.BASE if run.is_base else Kind.NOT_RANKED,
        mean=mean_of(run.scores[metric.name]),
        base_mean=mean_of(base.mean),
        floor=base.sd,
        threshold=base.threshold,
        seeds=len(base.seeds),
    )


def noise_floor(seeds: tuple[Run, ...]) -> Floor:
    """Measures the floor on complete base runs with the same inputs and different seeds.

    The deviation at the end of the training is compared with the one pooled over the last half
    of the measurements, and the larger is taken: two seeds can end close to each other by luck.
    """
    count = len(seeds)
    training_sd = seed_sd_of_smoothed_loss(seeds)
    if count < 2:
        seeds_told = "one base run" if count else "no base run"
        return Floor(count, math.nan, training_sd, f"{seeds_told} was trained to its end")
    shared = seeds[0].metrics.steps
    for run in seeds:
        measured = np.isfinite(run.metrics.column(HELD_OUT))
        shared = np.intersect1d(shared, run.metrics.steps[measured])
    if len(shared) == 0:
        reason = "the base runs hold no held-out loss that was measured at the same steps"
        return Floor(count, math.nan, training_sd, reason)
    late = shared[len(shared) // 2 :]
    curves = np.stack(
        [run.metrics.column(HELD_OUT)[np.isin(run.metrics.steps, late)] for run in seeds]
    )  # (R, P)
    sd = max(pooled_sd(curves), sample_sd(curves[:, -1]))
    if not sd > ROUNDING * abs(float(curves.mean())):
        reason = (
            "the base runs of all seeds end with the same held-out loss, as if nothing was learned"
        )
        return Floor(count, math.nan, training_sd, reason)
    return Floor(count, sd, training_sd)


def same_value(one: str, other: str) -> bool:
    """Whether two values as written mean the same: 1 and 1.0 do."""
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False


def _usable_base_runs(sweep: Sweep, reference: Run | None) -> tuple[Run, ...]:
    """Complete base runs with the reference's inputs, one a seed."""
    usable: dict[int | None, Run] = {}
    for run in sweep.base_runs:
        if reference is not None and run.complete and not compare(run, reference, ()).obstacles:
            usable.setdefault(run.seed, run)
    return tuple(usable.values())


def _show(run: Run, reference: Run | None) -> Judged:
    """A run that no verdict is asked of: one of the base's, or any when there is no base."""
    label = run.name if run.is_base else run.value
    kind = Kind.BASE if run.is_base else Kind.NOT_RANKED
    own, reason = measure(run), _why_incomplete(run)
    if reference is None:
        return Judged(run, label, own, kind, reason or "there is no base run to compare it with")
    obstacles = compare(run, reference, ()).obstacles if run.complete else ()
    paired = None if run is reference or obstacles else pair_loss(run, reference)
    return Judged(
        run, label, own, kind, reason or "; ".join(obstacles), paired, *_differ(own, reference)
    )


def _judge(
    run: Run,
    reference: Run,
    parameters: tuple[str, ...],
    sweep: Sweep,
    results: tuple[MetricResult, ...],
) -> Judged:
    """A value's run against the base."""
    own = measure(run)
    comparability = compare(run, reference, parameters)
    kind, reason = overall(results), ""
    if same_value(run.value, sweep.base_value):
        kind = Kind.BASE
    elif kind is Kind.NOT_RANKED:
        reason = _why_not_ranked(run, comparability, results)
    partner = _partner(run, sweep, reference)
    paired = pair_loss(run, partner) if comparability.ranked else None
    held_out = next((one for one in results if one.metric == "held_out_loss"), None)
    difference = held_out.difference if held_out else math.nan
    relative = held_out.relative if held_out else math.nan
    return Judged(run, run.value, own, kind, reason, paired, difference, relative)


def _partner(run: Run, sweep: Sweep, reference: Run) -> Run:
    """The base run of the same seed, whose training saw the same noise; else the first."""
    same = [base for base in sweep.base_runs if base.complete and base.seed == run.seed]
    return same[0] if same else reference


def _differ(own: Measures, partner: Run) -> tuple[float, float]:
    """Held-out loss - the partner's, and the same as a share of the partner's."""
    theirs = last_finite(partner.metrics.column(HELD_OUT))
    difference = own.held_out - theirs
    return difference, difference / theirs if theirs else math.nan


def _why_incomplete(run: Run) -> str:
    return {
        "complete": "",
        "failed": f"failed: {run.error or 'no reason was recorded'}",
        "missing": "missing: its folder holds no run.json",
        "unfinished": "not trained to its end",
    }[run.status]


def _why_not_ranked(
    run: Run, comparability: Comparability, results: tuple[MetricResult, ...]
) -> str:
    """The first reason why nothing can be said of a value."""
    if not run.complete:
        return _why_incomplete(run)
    if comparability.obstacles:
        return "; ".join(comparability.obstacles)
    reasons = [result.reason for result in results if result.reason]
    if comparability.loss_changed and not reasons:
        return comparability.loss_changed
    return reasons[0] if reasons else NOT_MEASURED
