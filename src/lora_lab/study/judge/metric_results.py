"""What can be said of one value in one metric."""

import math
from dataclasses import dataclass
from enum import StrEnum

from lora_lab.config.metrics import BY_NAME


class Verdict(StrEnum):
    """What can be said of a run."""

    BASE = "base"
    BETTER = "better"
    WORSE = "worse"
    MIXED = "better and worse"
    """Better in one metric and worse in another."""
    AS_GOOD = "as good"
    """Within a stated margin of the base, shown by two one-sided tests."""
    NONE_SHOWN = "no difference seen"
    ENDED_EARLY = "ended early"
    """It was worse at a third of its steps and was trained no further: `study.early_end`."""
    NOT_RANKED = "not ranked"


UNJUDGED = (Verdict.ENDED_EARLY, Verdict.NOT_RANKED)
"""Said of values of whose end nothing is known."""


@dataclass(frozen=True)
class MetricResult:
    """One value in one metric. The interval is corrected for all values and metrics."""

    value: str
    metric: str
    """Name of one of METRICS."""
    verdict: Verdict
    mean: float = math.nan
    """Mean of the value over its seeds and clusters."""
    base_mean: float = math.nan
    """The same of the base."""
    effect: float = math.nan
    """Value - base, paired by seed and by (prompt, image seed) or (image, timestep)."""
    low: float = math.nan
    """Lower end of the interval of the effect; it excludes 0 where a difference is shown."""
    high: float = math.nan
    """Its upper end."""
    p: float = math.nan
    """Of no difference, for this value and metric by themselves; not corrected."""
    level: float = math.nan
    """Error rate that the metric's family was tested at."""
    detectable: float = math.nan
    """Smallest true effect that the study shows with probability 0.8."""
    seeds_needed: int = 0
    """Seeds that would show a difference of 1 % of the base's mean; 0: not known or too many. It is
    told of one value a metric, the open one that was seen least clearly."""
    more_seeds: int = 0
    """Seeds that a next study could have; told with `seeds_needed` of the same value."""
    more_detectable: float = math.nan
    """What `detectable` would be under so many."""
    seeds: int = 0
    """Seeds that the effect was measured under, in value and base."""
    clusters: int = 0
    """Prompts or images that it was measured on."""
    floor: float = math.nan
    """Of a metric of identity: what the bare base reaches."""
    ceiling: float = math.nan
    """The same: how similar real pictures of the subject are to each other."""
    by_seed: tuple[float, ...] = ()
    """The effect under each seed; empty where value and base share none."""
    reason: str = ""
    """Why no verdict was possible; empty when one was."""
    remark: str = ""
    """What else is to be known: seeds left out, identical runs, the price of one seed."""

    @property
    def relative(self) -> float:
        """The effect as a share of the base's mean."""
        return self.share(self.effect)

    @property
    def way(self) -> float:
        """Identity as a share of the way from the bare base to real pictures; NaN elsewhere."""
        return self.way_of(self.mean)

    def way_of(self, mean: float) -> float:
        """Which share of that way a mean has gone."""
        length = self.ceiling - self.floor
        return (mean - self.floor) / length if length > 0 else math.nan

    def share(self, figure: float) -> float:
        """A figure as a share of the base's mean."""
        return figure / abs(self.base_mean) if self.base_mean else math.nan


@dataclass(frozen=True)
class Trend:
    """Whether a metric rises or falls with the values, base among them."""

    metric: str
    slope: float
    """Change of the metric a step of the scale."""
    low: float
    """Lower end of the interval of the slope, corrected as those of the values are."""
    high: float
    by_factor: bool
    """Whether a step of the scale doubles the value; else it adds 1 to it."""
    shown: bool
    """Whether the trend is one under the error rate of the report."""
    seeds: int


def overall(results: tuple[MetricResult, ...]) -> Verdict:
    """One word for all metrics of a value.

    "As good" is said of the first metric alone; any difference in another one goes before it.
    """
    judged = [result for result in results if BY_NAME[result.metric].judged]
    found = [result.verdict for result in judged if result.verdict not in UNJUDGED]
    if {Verdict.BETTER, Verdict.WORSE} <= set(found):
        return Verdict.MIXED
    for verdict in (Verdict.BETTER, Verdict.WORSE):
        if verdict in found:
            return verdict
    return found[0] if found else Verdict.NOT_RANKED
