"""Which values get more seeds: those that are undecided and can be decided within the budget.

Stopping a value early because it can't be decided takes nothing from the error rate: a value that
is not looked at again can't be shown to differ.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from scipy import stats

from lora_lab.config.metrics import BY_NAME
from lora_lab.study.judge.judge_values import DECIDED
from lora_lab.study.judge.metric_results import Kind, MetricResult
from lora_lab.study.judge.verdict import Study


@dataclass(frozen=True)
class Split:
    """Values that get more seeds, and those that don't, each with the reason."""

    open: Mapping[str, str] = field(default_factory=dict)
    closed: Mapping[str, str] = field(default_factory=dict)


def split_values(study: Study, most: int) -> Split:
    """Says of each value whether more seeds can tell more.

    Args:
        study: the judged runs so far.
        most: seeds that a value gets at most.
    """
    still_open, closed = {}, {}
    for one in study.values:
        if one.kind is Kind.BASE:
            continue
        result = one.first_result
        if result is None:
            closed[one.run.value] = one.reason or "it could not be judged"
        elif result.verdict in DECIDED:
            closed[one.run.value] = verdict_words(result)
        elif result.seeds >= most:
            closed[one.run.value] = f"undecided under all {most} seeds"
        elif not can_be_decided(result, most, study.margin):
            closed[one.run.value] = f"undecided, and up to {most} seeds would hardly change that"
        else:
            still_open[one.run.value] = f"undecided under {result.seeds} seeds"
    return Split(still_open, closed)


def verdict_words(result: MetricResult) -> str:
    """The verdict with its metric: worse in held-out loss."""
    return f"{result.verdict.value} in {BY_NAME[result.metric].word}"


def can_be_decided(result: MetricResult, most: int, margin: float) -> bool:
    """Whether more seeds may show a difference, or that there is none within the margin.

    The standard error is taken to shrink with the root of the seeds. The effect may lie one of
    today's standard errors farther out, or nearer, than it was measured.

    Args:
        result: an undecided value in its first metric.
        most: seeds that it may get.
        margin: share of the base's mean that doesn't matter.
    """
    seeds = result.seeds
    if seeds < 2 or not (math.isfinite(result.low) and math.isfinite(result.high)):
        return True
    level = result.level if 0 < result.level < 1 else 0.05
    error = (result.high - result.low) / 2 / float(stats.t.isf(level / 2, seeds - 1))
    width = float(stats.t.isf(level / 2, most - 1)) * error * math.sqrt(seeds / most)
    effect = abs(result.effect)
    shown = effect + error > width
    as_good = max(effect - error, 0.0) + width < margin * abs(result.base_mean)
    return shown or as_good
