"""May one value be called better? The decision, run by run.

The figure is the loss on held-out images at the end of the training, at fixed timesteps and under
fixed noise. Its noise floor is the standard deviation between the seeds of the base. A value is
called better or worse only if its difference to the base of the same seed is larger than twice
the floor; otherwise no difference was shown.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from lora_lab.statistics import last_finite, pooled_sd, sample_sd
from lora_lab.study.comparable import Comparability, compare, parameters_of
from lora_lab.study.load import Run, Sweep
from lora_lab.study.measure import HELD_OUT, Measures, measure
from lora_lab.study.pair import PairedLoss, pair_loss, seed_sd_of_smoothed_loss

FACTOR = 2.0
"""A difference counts when it exceeds so many standard deviations between the base's seeds."""
ROUNDING = 1e-6
"""A floor below this share of the loss is rounding, not training."""
FEW_SEEDS = 5
"""With fewer base seeds than this the floor itself is uncertain, and the report says so."""


class Kind(StrEnum):
    """What can be said of a run."""

    BASE = "base"
    BETTER = "better"
    WORSE = "worse"
    NONE_SHOWN = "no difference shown"
    NOT_RANKED = "not ranked"


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
        """The smallest difference in held-out loss that the study could have shown."""
        return FACTOR * self.sd


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
    """Held-out loss - that of the base of the same seed."""
    relative: float = math.nan
    """The same as a share of the base's loss."""


@dataclass(frozen=True)
class Study:
    """A sweep with its verdicts, in the order of sweep.json."""

    sweep: Sweep
    parameters: tuple[str, ...]
    base: Judged | None
    """The base run that the others are shown against; None when none was trained to its end."""
    floor: Floor
    judged: tuple[Judged, ...]

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
    partners = {run.seed: run for run in seeds}
    judged = []
    for run in sweep.runs:
        if run.is_base or reference is None:
            judged.append(_show(run, reference))
        else:
            judged.append(_judge(run, partners.get(run.seed, reference), parameters, floor, sweep))
    base = next((one for one in judged if one.run is reference), None)
    return Study(sweep, parameters, base, floor, tuple(judged))


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
    run: Run, partner: Run, parameters: tuple[str, ...], floor: Floor, sweep: Sweep
) -> Judged:
    """A value's run against the base run of its seed."""
    own = measure(run)
    comparability = compare(run, partner, parameters)
    difference, relative = _differ(own, partner)
    reason = _why_not_ranked(run, partner, comparability, floor, difference)
    if same_value(run.value, sweep.base_value):
        kind = Kind.BASE
    elif reason:
        kind = Kind.NOT_RANKED
    elif abs(difference) <= floor.threshold:
        kind = Kind.NONE_SHOWN
    else:
        kind = Kind.BETTER if difference < 0 else Kind.WORSE
    paired = pair_loss(run, partner) if comparability.ranked else None
    if not run.complete or not comparability.ranked:
        difference = relative = math.nan
    return Judged(run, run.value, own, kind, reason, paired, difference, relative)


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
    run: Run, partner: Run, comparability: Comparability, floor: Floor, difference: float
) -> str:
    """The first reason why nothing can be said of a value; empty when there is none."""
    if not run.complete:
        return _why_incomplete(run)
    if comparability.obstacles:
        return "; ".join(comparability.obstacles)
    if comparability.loss_changed:
        return comparability.loss_changed
    if run.seed != partner.seed:
        return f"no base run has its seed {run.seed}"
    if not math.isfinite(difference):
        return "no held-out loss was measured in it or in the base"
    return f"no noise floor: {floor.reason}" if floor.reason else ""
