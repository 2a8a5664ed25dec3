"""What a person in a hurry takes home: one true sentence, and what stands behind it."""

import math
from dataclasses import dataclass

from lora_lab.study.judge.metric_results import BY_NAME, METRICS, Kind, MetricResult
from lora_lab.study.judge.verdict import FEW_SEEDS, Judged, Study
from lora_lab.study.report.spelling import listed, magnitude, percent, size

RANKED = (Kind.BETTER, Kind.WORSE, Kind.MIXED, Kind.NONE_SHOWN)

MANY_VALUES = 8
"""With more values than this, some cross the floor by chance alone: the report says so."""
FEW_LABELS = 5
"""Up to so many values are named one by one."""
MOST_TOLD = 3
"""Metrics whose detectable difference the first sentence tells."""
NOTICEABLE = 0.05
"""Share by which a file must be smaller to be worth a sentence."""


@dataclass(frozen=True)
class Headline:
    """The top of the report."""

    sentence: str
    details: tuple[str, ...]


def headline(study: Study) -> Headline:
    """Says what was shown and what was not."""
    details = (_floor(study), _chance(study), _cost(study), _choice(study))
    return Headline(_sentence(study), tuple(detail for detail in details if detail))


def of_kind(study: Study, *kinds: Kind) -> list[Judged]:
    """The values of some kinds; the largest differences in held-out loss first."""
    found = [one for one in study.values if one.kind in kinds]
    if Kind.NONE_SHOWN not in kinds:
        found.sort(key=lambda one: -abs(one.difference) if math.isfinite(one.difference) else 0.0)
    return found


def shown_in(one: Judged, kind: Kind) -> list[MetricResult]:
    """The metrics in which a value was shown to be better, or worse."""
    return [r for r in one.results if r.verdict is kind and BY_NAME[r.metric].judged]


def _sentence(study: Study) -> str:
    name, values = study.sweep.parameter, study.values
    if study.base is None:
        return f"No verdict on {name}: no run of the base was trained to its end."
    if not any(one.kind is not Kind.BASE for one in values):
        return f"No verdict on {name}: the sweep holds no value beside the base's own."
    ranked = [one for one in values if one.kind in RANKED]
    if not ranked:
        reasons = list(dict.fromkeys(one.reason for one in values if one.reason))
        why = reasons[0] if len(reasons) == 1 else "no value could be ranked"
        return f"No verdict on {name}: {why}."
    parts = [*_differences(study), _no_difference(study), _not_ranked(study)]
    return f"{name}: {'; '.join(part for part in parts if part)}."


def _differences(study: Study) -> list[str]:
    """One part for all values that are better or worse in the same metrics."""
    groups: dict[str, list[Judged]] = {}
    for one in of_kind(study, Kind.BETTER, Kind.MIXED, Kind.WORSE):
        groups.setdefault(_manner(one), []).append(one)
    ordered = sorted(groups.items(), key=lambda group: list(Kind).index(group[1][0].kind))
    parts = []
    for index, (manner, found) in enumerate(ordered):
        than = f" than the base ({study.sweep.base_value})" if index == 0 else ""
        parts.append(
            f"{_subject(found)} {manner.replace(' in ', than + ' in ', 1)}{_extent(found)}"
        )
    return parts


def _manner(one: Judged) -> str:
    """Better in identity but worse in held-out loss."""
    words = []
    for kind in (Kind.BETTER, Kind.WORSE):
        metrics = [BY_NAME[result.metric].word for result in shown_in(one, kind)]
        if metrics:
            words.append(f"{kind.value} in {listed(metrics)}")
    return " but ".join(words)


def _subject(found: list[Judged]) -> str:
    """The labels while they are few, their number and the first otherwise, with the verb."""
    if len(found) > FEW_LABELS:
        return f"{len(found)} values, {found[0].label} most of all, are"
    return f"{_labels(found)} {'is' if len(found) == 1 else 'are'}"


def _extent(found: list[Judged]) -> str:
    """By how much, where it is one metric that differs."""
    results = [*shown_in(found[0], Kind.BETTER), *shown_in(found[0], Kind.WORSE)]
    if len(results) != 1:
        return ""
    return f" ({'up to ' if len(found) > 1 else ''}{percent(results[0].relative)})"


def _no_difference(study: Study) -> str:
    found = of_kind(study, Kind.NONE_SHOWN)
    if not found:
        return ""
    if len(found) == len([one for one in study.values if one.kind is not Kind.BASE]):
        text = (
            f"no difference shown between {_labels(found)} and the base ({study.sweep.base_value})"
        )
    else:
        text = f"no difference shown for {_labels(found)}"
    return text + _smaller(study, found) + _could_see(found)


def _smaller(study: Study, found: list[Judged]) -> str:
    """The size of the smallest file among values that were not shown to differ."""
    theirs = study.base.measures.lora_bytes if study.base else math.nan
    sized = [one for one in found if math.isfinite(one.measures.lora_bytes)]
    smallest = min(sized, key=lambda one: one.measures.lora_bytes, default=None)
    if smallest is None or not smallest.measures.lora_bytes < (1 - NOTICEABLE) * theirs:
        return ""
    share = smallest.measures.lora_bytes / theirs
    whose = "" if len(found) == 1 else f"{smallest.label} "
    return f", {whose}at {share * 100:.0f} % of the base's file size"


def _could_see(found: list[Judged]) -> str:
    """What the study would have seen, in the metric that sees least among identity and loss."""
    told = []
    for metric in METRICS:
        results = [r for one in found if (r := one.result(metric.name)) and math.isfinite(r.mdd)]
        if metric.judged and results and all(r.base_mean for r in results):
            largest = max(r.mdd / abs(r.base_mean) for r in results)
            told.append(f"{magnitude(largest)} in {metric.word}")
    if not told:
        return ""
    return f" (it would have been seen from {listed(told[:MOST_TOLD])})"


def _not_ranked(study: Study) -> str:
    found = of_kind(study, Kind.NOT_RANKED)
    if not found:
        return ""
    failed = [one for one in found if not one.run.complete]
    if len(failed) == len(found):
        return f"{_labels(found)} {'was' if len(found) == 1 else 'were'} not trained to the end"
    return f"{_labels(found)} could not be ranked"


def _floor(study: Study) -> str:
    floor = study.floor
    if study.base is None:
        return ""
    if floor.reason:
        advice = "train the base with two seeds at least (study.seeds=2)"
        if floor.seeds >= 2:
            advice = "look at the learning rate at work below, and train for longer"
        return (
            "Without a noise floor nothing can be called better or worse, "
            f"and there is none: {floor.reason}. What to do: {advice}."
        )
    share = floor.sd / study.base.measures.held_out
    text = (
        f"Noise floor: {floor.seeds} base runs that differ in nothing but the seed lie "
        f"{magnitude(share)} apart in held-out loss (standard deviation). With {floor.seeds} seeds "
        f"a difference counts from {floor.threshold / floor.sd:.1f} times that on, "
        f"{magnitude(floor.threshold / study.base.measures.held_out)}: another seed alone goes "
        "beyond it once in twenty times."
    )
    if floor.seeds < FEW_SEEDS:
        text += f" More seeds see smaller differences (study.seeds={FEW_SEEDS})."
    return text


def _chance(study: Study) -> str:
    ranked = [one for one in study.values if one.kind in RANKED]
    if len(ranked) <= MANY_VALUES or study.floor.reason:
        return ""
    return (
        f"{len(ranked)} values were compared with one base: intervals are corrected for that, the "
        "noise floor is not, and among so many some cross it by chance alone."
    )


def _cost(study: Study) -> str:
    """The smallest file among the values that were not shown to be worse."""
    if study.base is None or study.floor.reason:
        return ""
    fit = [
        one
        for one in (*of_kind(study, Kind.BETTER), *of_kind(study, Kind.NONE_SHOWN))
        if math.isfinite(one.measures.lora_bytes)
    ]
    theirs = study.base.measures.lora_bytes
    smallest = min(fit, key=lambda one: one.measures.lora_bytes, default=None)
    if smallest is None or not smallest.measures.lora_bytes < (1 - NOTICEABLE) * theirs:
        return ""
    return (
        f"Smallest file among those not shown to be worse: {smallest.label}, "
        f"{size(smallest.measures.lora_bytes)} against the base's {size(theirs)}."
    )


def _choice(study: Study) -> str:
    """Which checkpoint to use, where that was asked for."""
    parts = [
        f"{one.label}: step {one.run.choice.step} at weight {one.run.choice.weight:g}"
        for one in study.judged
        if one.run.choice is not None and (not one.run.is_base or one is study.base)
    ]
    if not parts:
        return ""
    return (
        f"Checkpoint to use, chosen by the images of prompts that no figure here was measured on: "
        f"{'; '.join(parts[:MANY_VALUES])}."
    )


def _labels(found: list[Judged]) -> str:
    if len(found) > FEW_LABELS:
        return f"{len(found)} values"
    return listed([one.label for one in found])
