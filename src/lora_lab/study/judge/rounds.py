"""Which values get more seeds: those that are undecided and can be decided within the budget.

Stopping a value early because it can't be decided takes nothing from the error rate: a value that
is not looked at again can't be shown to differ.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from lora_lab.config.metrics import BY_NAME
from lora_lab.statistics.family import ALPHA
from lora_lab.statistics.power import worth_more_seeds
from lora_lab.study.judge.judge_values import DECIDED
from lora_lab.study.judge.metric_results import MetricResult, Verdict
from lora_lab.study.judge.verdict import Study


@dataclass(frozen=True)
class Split:
    """Values that get more seeds, and those that don't, each with the reason."""

    open: Mapping[str, str] = field(default_factory=dict)
    closed: Mapping[str, str] = field(default_factory=dict)


def split_values(study: Study, most: int) -> Split:
    """Say of each value whether more seeds can tell more.

    Args:
        study: The judged runs so far.
        most: Seeds that a value gets at most.
    """
    still_open, closed = {}, {}
    for one in study.values:
        if one.verdict is Verdict.BASE:
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
    """Whether more seeds may decide a value, by `worth_more_seeds`; yes where nothing is known yet.

    Args:
        result: An undecided value in its first metric.
        most: Seeds that it may get.
        margin: Share of the base's mean that doesn't matter.
    """
    half_width = (result.high - result.low) / 2
    if result.seeds < 2 or not math.isfinite(half_width):
        return True
    level = result.level if 0 < result.level < 1 else ALPHA
    within = margin * abs(result.base_mean)
    effect, width = np.array([result.effect]), np.array([half_width])
    return bool(worth_more_seeds(effect, width, result.seeds, most, level, within).all())
