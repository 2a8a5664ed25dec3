"""What a person in a hurry takes home: one true sentence, and what stands behind it."""

import math
from dataclasses import dataclass

from lora_lab.study.spelling import listed, magnitude, size
from lora_lab.study.verdict import FEW_SEEDS, Judged, Kind, Study

MANY_VALUES = 8
"""With more values than this, some cross the floor by chance alone: the report says so."""
FEW_LABELS = 5
"""Up to so many values are named one by one."""
NOTICEABLE = 0.05
"""Share by which a file must be smaller to be worth a sentence."""


@dataclass(frozen=True)
class Headline:
    """The top of the report."""

    sentence: str
    details: tuple[str, ...]


def headline(study: Study) -> Headline:
    """Says what was shown and what was not."""
    details = [detail for detail in (_floor(study), _chance(study), _cost(study)) if detail]
    return Headline(_sentence(study), tuple(details))


def of_kind(study: Study, kind: Kind) -> list[Judged]:
    """The values of one kind; the largest differences first where there are any."""
    found = [one for one in study.values if one.kind is kind]
    if kind in (Kind.BETTER, Kind.WORSE):
        found.sort(key=lambda one: -abs(one.difference))
    return found


def _sentence(study: Study) -> str:
    name, values = study.sweep.parameter, study.values
    if study.base is None:
        return f"No verdict on {name}: no run of the base was trained to its end."
    if not any(one.kind is not Kind.BASE for one in values):
        return f"No verdict on {name}: the sweep holds no value beside the base's own."
    ranked = [one for one in values if one.kind in (Kind.BETTER, Kind.WORSE, Kind.NONE_SHOWN)]
    if not ranked:
        reasons = list(dict.fromkeys(one.reason for one in values if one.reason))
        why = reasons[0] if len(reasons) == 1 else "no value could be ranked"
        return f"No verdict on {name}: {why}."
    parts = [_better(study), _worse(study), _no_difference(study), _not_ranked(study)]
    return f"{name}: {'; '.join(part for part in parts if part)}."


def _better(study: Study) -> str:
    found = of_kind(study, Kind.BETTER)
    if not found:
        return ""
    base = study.sweep.base_value
    return (
        f"{_subject(found)} better than the base ({base}), {_extent(found)} lower in held-out loss"
    )


def _worse(study: Study) -> str:
    found = of_kind(study, Kind.WORSE)
    if not found:
        return ""
    if of_kind(study, Kind.BETTER):
        return f"{_subject(found)} worse, {_extent(found)} higher"
    base = study.sweep.base_value
    return (
        f"{_subject(found)} worse than the base ({base}), {_extent(found)} higher in held-out loss"
    )


def _subject(found: list[Judged]) -> str:
    """The labels while they are few, their number and the first otherwise, with the verb."""
    if len(found) > FEW_LABELS:
        return f"{len(found)} values, {found[0].label} most of all, are"
    return f"{_labels(found)} {'is' if len(found) == 1 else 'are'}"


def _extent(found: list[Judged]) -> str:
    return ("up to " if len(found) > 1 else "") + magnitude(found[0].relative)


def _no_difference(study: Study) -> str:
    found = of_kind(study, Kind.NONE_SHOWN)
    if not found:
        return ""
    if len(found) == len([one for one in study.values if one.kind is not Kind.BASE]):
        return (
            f"no difference shown between {_labels(found)} and the base ({study.sweep.base_value})"
        )
    return f"no difference shown for {_labels(found)}"


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
        advice = "train the base with two seeds at least (study.base_runs=2)"
        if floor.seeds >= 2:
            advice = "look at the learning rate at work below, and train for longer"
        return (
            "Without a noise floor nothing can be called better or worse, "
            f"and there is none: {floor.reason}. What to do: {advice}."
        )
    share = floor.sd / study.base.measures.held_out
    text = (
        f"Noise floor: {floor.seeds} base runs that differ in nothing but the seed lie "
        f"{magnitude(share)} apart in held-out loss (standard deviation). Better or worse means "
        f"beyond twice that, {magnitude(2 * share)}; a smaller difference could not have been seen."
    )
    if floor.seeds < FEW_SEEDS:
        text += (
            f" {floor.seeds} seeds are few: the floor itself is uncertain, so a verdict near it is "
            "a hint, not a proof (study.base_runs=5 makes it firmer)."
        )
    return text


def _chance(study: Study) -> str:
    ranked = [one for one in study.values if one.kind in (Kind.BETTER, Kind.WORSE, Kind.NONE_SHOWN)]
    if len(ranked) <= MANY_VALUES or study.floor.reason:
        return ""
    return (
        f"{len(ranked)} values were compared with one base: among so many, some cross the floor "
        "by chance alone."
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


def _labels(found: list[Judged]) -> str:
    if len(found) > FEW_LABELS:
        return f"{len(found)} values"
    return listed([one.label for one in found])
