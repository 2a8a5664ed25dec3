"""May one value be called better? The decision, metric by metric and value by value.

A value is compared with the base seed by seed: the same seed, the same noise. It is better or worse
if the interval of the difference excludes 0 under the one error rate of the report, as good if two
one-sided tests show that within a margin, and otherwise no difference was seen.
"""

import math
from dataclasses import dataclass

import numpy as np

from lora_lab.config.metrics import BY_NAME, METRICS, Metric
from lora_lab.run_folder.scores_file import NO_ANCHORS
from lora_lab.statistics.curves import pooled_sd, sample_sd
from lora_lab.statistics.family import ALPHA, look_counts
from lora_lab.statistics.paired import mean_of
from lora_lab.study.judge.comparable import compare, parameters_of
from lora_lab.study.judge.judge_values import Judgement, Looks, judge_values
from lora_lab.study.judge.metric_results import UNJUDGED, MetricResult, Trend, Verdict, overall
from lora_lab.study.judge.pair import PairedLoss, pair_loss, seed_sd_of_smoothed_loss
from lora_lab.study.judge.paired_runs import ROUNDING, ValueRuns, pair_runs
from lora_lab.study.judge.run_measures import Measures, measure
from lora_lab.study.judge.stacked_pairs import told_of_stacks
from lora_lab.study.read.held_out_file import HELD_OUT
from lora_lab.study.read.load import Run, Sweep

NOT_MEASURED = "neither held-out loss nor image metrics were measured"
NO_LOOKS = Looks((), ())
JUDGED_BY = "held_out_loss"
"""The metric by which values end early."""
MARGIN = 0.02
"""`study.margin` of runs that were trained before there was one."""


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


@dataclass(frozen=True)
class Judged:
    """A run with its figures and what can be said of it."""

    run: Run
    label: str
    """The value, or the name of a base run."""
    measures: Measures
    verdict: Verdict
    reason: str = ""
    """Why the run isn't ranked; empty when it is."""
    paired: PairedLoss | None = None
    """Training loss against the base of the same seed."""
    results: tuple[MetricResult, ...] = ()
    """One a metric that the value was measured in, over all its seeds, in the order of METRICS."""

    def result(self, metric: str) -> MetricResult | None:
        """The result in one metric; None when it wasn't measured."""
        return next((result for result in self.results if result.metric == metric), None)

    @property
    def first_result(self) -> MetricResult | None:
        """The result in the first metric that was judged."""
        judged = [one for one in self.results if BY_NAME[one.metric].judged]
        return next((one for one in judged if one.verdict not in UNJUDGED), None)


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
    value_runs: tuple[ValueRuns, ...] = ()
    """The runs of each value that was judged."""
    trends: tuple[Trend, ...] = ()
    """One a metric, where the values are numbers."""
    looks: Looks = NO_LOOKS
    """Which seeds were looked at together."""
    margin: float = MARGIN
    """Share of the base's mean within which a value is as good."""
    stacks_told: str = ""
    """What is to be known of pairs that were trained in two ways; empty where nothing is."""

    @property
    def values(self) -> tuple[Judged, ...]:
        """One run of each value, without the base's: the first one that was trained to its end."""
        found: dict[str, Judged] = {}
        for one in self.judged:
            if not one.run.is_base:
                earlier = found.get(one.run.value)
                if earlier is None or (one.run.complete and not earlier.run.complete):
                    found[one.run.value] = one
        return tuple(found.values())

    @property
    def shown(self) -> tuple[Judged, ...]:
        """The base's runs and one of each value, in the order of sweep.json."""
        values = self.values
        return tuple(one for one in self.judged if one.run.is_base or one in values)


def judge(sweep: Sweep) -> Study:
    """Measure and judge every run of a sweep."""
    parameters = parameters_of(sweep.parameter)
    reference = next((run for run in sweep.base_runs if run.complete), None)
    base = _usable_base_runs(sweep, reference)
    values = _value_runs(sweep, base, parameters)
    looks = _looks(sweep)
    margin = sweep.margin if math.isfinite(sweep.margin) else MARGIN
    judgement = Judgement({})
    if reference is not None:
        judgeable = [value for value in values if not value.reason]
        judgement = judge_values(judgeable, base, sweep.base_value, looks, margin)
    by_value = {value.value: value for value in values}
    judged = tuple(
        _show(run, reference)
        if run.is_base or reference is None
        else _judge(run, base, sweep, by_value.get(run.value), judgement)
        for run in sweep.runs
    )
    found = {name for run in sweep.runs for name, scores in run.scores.items() if scores}
    return Study(
        sweep=sweep,
        parameters=parameters,
        base=next((one for one in judged if one.run is reference), None),
        floor=noise_floor(base),
        judged=judged,
        metrics=tuple(metric for metric in METRICS if metric.name in found),
        value_runs=values,
        trends=judgement.trends,
        looks=looks,
        margin=margin,
        stacks_told=told_of_stacks(values, judgement.results),
    )


def _value_runs(
    sweep: Sweep, base: tuple[Run, ...], parameters: tuple[str, ...]
) -> tuple[ValueRuns, ...]:
    """The runs of every value but the base's own that stand against the base."""
    if not base:
        return ()
    return tuple(
        pair_runs(value, runs, base, parameters, _why_incomplete)
        for value, runs in sweep.value_runs.items()
        if not same_value(value, sweep.base_value)
    )


def _looks(sweep: Sweep) -> Looks:
    """One look at all seeds, or those of `study.max_seeds`."""
    first, most, alpha = sweep.planned_seeds, sweep.max_seeds, ALPHA * sweep.error_share
    if not first or not most or most <= first:
        return Looks((sweep.seeds,), (max(2, len(sweep.seeds)),), alpha)
    # One seed has no pairs to look at.
    counts = tuple(count for count in look_counts(first, most) if count >= 2)
    seen = [count for count in counts if count <= len(sweep.seeds)] or [counts[0]]
    return Looks(tuple(sweep.seeds[:count] for count in seen), counts, alpha)


def noise_floor(seeds: tuple[Run, ...]) -> Floor:
    """Measure the floor on complete base runs with the same inputs and different seeds.

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
    verdict = Verdict.BASE if run.is_base else Verdict.NOT_RANKED
    own, reason = measure(run), _why_incomplete(run)
    if reference is None:
        return Judged(run, label, own, verdict, reason or "there is no base run to compare it with")
    obstacles = compare(run, reference, ()).obstacles if run.complete else ()
    paired = None if run is reference or obstacles else pair_loss(run, reference)
    return Judged(
        run, label, own, verdict, reason or "; ".join(obstacles), paired, _shown_results(run)
    )


def _shown_results(run: Run) -> tuple[MetricResult, ...]:
    """A run that is shown in its metrics and not judged."""
    verdict = Verdict.BASE if run.is_base else Verdict.NOT_RANKED
    return tuple(
        MetricResult(
            run.value,
            metric.name,
            verdict,
            mean_of(run.scores[metric.name]),
            floor=run.anchors.get(metric.name, NO_ANCHORS).floor,
            ceiling=run.anchors.get(metric.name, NO_ANCHORS).ceiling,
        )
        for metric in METRICS
        if run.scores.get(metric.name)
    )


def _judge(
    run: Run, base: tuple[Run, ...], sweep: Sweep, value: ValueRuns | None, judgement: Judgement
) -> Judged:
    """A run of a value, with what was found of the value under all its seeds."""
    seeds = [one.seed for one in sweep.runs if one.value == run.value and not one.is_base]
    first = next(one for one in sweep.runs if one.value == run.value and not one.is_base)
    label = run.value if len(seeds) == 1 or run is first else f"{run.value}, seed {run.seed}"
    own, partner = measure(run), _partner(run, base)
    if run.ended_early:
        return _ended_early(run, label, own)
    paired = pair_loss(run, partner) if _paired(run, partner, sweep) else None
    if value is None:
        why, shown = _why_incomplete(run), _shown_results(run)
        return Judged(run, label, own, Verdict.BASE, why, paired, shown)
    results = judgement.results.get(run.value, ())
    verdict, reason = overall(results), ""
    if not run.complete:
        reason = _why_incomplete(run)
    elif verdict is Verdict.NOT_RANKED:
        reason = value.reason or _why_not_ranked(results)
    return Judged(run, label, own, verdict, reason, paired, results or _shown_results(run))


def _ended_early(run: Run, label: str, own: Measures) -> Judged:
    """A run of a value that ended early: told as such, and held against nothing that others have.

    Its figures are those of another step than the others' last one.
    """
    verdict, reason = Verdict.ENDED_EARLY, run.ended_early
    result = MetricResult(run.value, JUDGED_BY, verdict, seeds=0, reason=reason)
    return Judged(run, label, own, verdict, reason, results=(result,))


def _paired(run: Run, partner: Run, sweep: Sweep) -> bool:
    """Whether a run's training loss may be held against the base's."""
    comparability = compare(run, partner, parameters_of(sweep.parameter))
    return not comparability.obstacles and not comparability.training_changed


def _partner(run: Run, base: tuple[Run, ...]) -> Run:
    """The base run of the same seed, whose training saw the same noise; else the first."""
    return next((one for one in base if one.seed == run.seed), base[0])


def _why_incomplete(run: Run) -> str:
    return {
        "complete": "",
        "failed": f"failed: {run.error or 'no reason was recorded'}",
        "missing": "missing: its folder holds no run.json",
        "ended early": run.ended_early,
        "unfinished": "not trained to its end",
    }[run.status]


def _why_not_ranked(results: tuple[MetricResult, ...]) -> str:
    """The first reason why nothing can be said of a value."""
    reasons = [result.reason for result in results if result.reason]
    return reasons[0] if reasons else NOT_MEASURED
