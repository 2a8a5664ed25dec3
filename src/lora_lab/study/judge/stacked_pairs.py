"""Value and base of a pair, one trained in a stack and the other alone: does that matter?

A run of a stack equals the run alone but for the last digits (docs/stacking.md), so the two ways
are one as long as what the study shows is far larger than that.
"""

from collections.abc import Mapping, Sequence

from lora_lab.config.metrics import BY_NAME
from lora_lab.study.judge.metric_results import MetricResult, Verdict
from lora_lab.study.judge.paired_runs import ValueRuns

TOLERANCE: Mapping[str, float] = {"held_out_loss": 1e-6}
"""Metric -> how far a run of a stack may lie from the run alone, as a share of the figure;
tests/test_stack.py holds it. What images differ by is not known."""
NEGLIGIBLE = 0.01
"""The two ways are one where they differ by less than this share of the smallest effect shown."""


def told_of_stacks(
    values: Sequence[ValueRuns], results: Mapping[str, Sequence[MetricResult]]
) -> str:
    """One sentence where it may matter that a value and its base were trained in two ways.

    Args:
        values: The runs of each value, in pairs with the base's.
        results: value -> what was found of it.

    Returns:
        Empty where each pair was trained in one way, or the two ways are as good as one.
    """
    mixed = [
        value.value
        for value in values
        if any((pair.run.record.stack > 1) != (pair.base.record.stack > 1) for pair in value.pairs)
    ]
    doubtful: dict[str, None] = {}
    for value in mixed:
        for result in results.get(value, ()):
            judged = BY_NAME[result.metric].judged
            if judged and result.verdict in (Verdict.BETTER, Verdict.WORSE) and not _is_one(result):
                doubtful[BY_NAME[result.metric].word] = None
    if not doubtful:
        return ""
    return (
        f"Whether all of the difference in {' and '.join(doubtful)} is the setting’s: of "
        f"{', '.join(mixed)} and the base one was trained in a stack and the other alone, which "
        f"agree in all but the last digits. Train both in one way to be sure."
    )


def _is_one(result: MetricResult) -> bool:
    tolerance = TOLERANCE.get(result.metric)
    return tolerance is not None and tolerance < NEGLIGIBLE * abs(result.relative)
