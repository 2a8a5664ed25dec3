"""What a person in a hurry takes home: one true sentence, and what stands behind it."""

import math
from dataclasses import dataclass

from lora_lab.config.metrics import BY_NAME, METRICS
from lora_lab.statistics.family import ALPHA
from lora_lab.study.judge.judge_values import WANTED
from lora_lab.study.judge.metric_results import MetricResult, Verdict
from lora_lab.study.judge.verdict import Judged, Study
from lora_lab.study.report.sentence import short_sentence
from lora_lab.study.report.spelling import listed, magnitude, percent, plain, signed, size

RANKED = (
    *(Verdict.BETTER, Verdict.WORSE, Verdict.MIXED, Verdict.AS_GOOD, Verdict.NONE_SHOWN),
    Verdict.ENDED_EARLY,
)

MANY_VALUES = 8
"""Of so many values the chosen checkpoint is named."""
FEW_LABELS = 5
"""Up to so many values are named one by one."""
MOST_TOLD = 3
"""Metrics whose detectable difference the first sentence tells."""
NOTICEABLE = 0.05
"""Share by which a file must be smaller to be worth a sentence."""
MANY_TIMES = 3
"""More seeds than so many times today's are no next step."""
HARDLY = 0.9
"""More seeds that leave a larger share of what can be seen today are not worth training."""


@dataclass(frozen=True)
class Headline:
    """The top of the report."""

    sentence: str
    details: tuple[str, ...]


def headline(study: Study) -> Headline:
    """Say what was shown and what was not."""
    full, short = full_sentence(study), short_sentence(study)
    details = (
        full if short else "",
        *(_evidence(study), _trends(study), _next_step(study), _cost(study), _choice(study)),
    )
    return Headline(short or full, tuple(detail for detail in details if detail))


def of_verdict(study: Study, *verdicts: Verdict) -> list[Judged]:
    """The values of some verdicts; the largest differences in the first metric first."""
    found = [one for one in study.values if one.verdict in verdicts]
    if Verdict.NONE_SHOWN not in verdicts:
        found.sort(key=lambda one: -abs(one.first_result.effect) if one.first_result else 0.0)
    return found


def shown_in(one: Judged, verdict: Verdict) -> list[MetricResult]:
    """The metrics in which a value was shown to be better, or worse."""
    return [r for r in one.results if r.verdict is verdict and BY_NAME[r.metric].judged]


def full_sentence(study: Study) -> str:
    """Every verdict with its metric and size, and what would have been seen."""
    name, values = study.sweep.parameter, study.values
    if study.base is None:
        return f"No verdict on {name}: no run of the base was trained to its end."
    if not any(one.verdict is not Verdict.BASE for one in values):
        return f"No verdict on {name}: the sweep holds no value beside the base's own."
    ranked = [one for one in values if one.verdict in RANKED]
    if not ranked:
        reasons = list(dict.fromkeys(one.reason for one in values if one.reason))
        why = reasons[0] if len(reasons) == 1 else "no value could be ranked"
        return f"No verdict on {name}: {why}."
    parts = [*_differences(study), _as_good(study), _no_difference(study)]
    parts += [*_ended_early(study), _not_ranked(study)]
    return f"{name}: {'; '.join(part for part in parts if part)}."


def _differences(study: Study) -> list[str]:
    """One part for all values that are better or worse in the same metrics."""
    groups: dict[str, list[Judged]] = {}
    for one in of_verdict(study, Verdict.BETTER, Verdict.MIXED, Verdict.WORSE):
        groups.setdefault(_manner(one), []).append(one)
    ordered = sorted(groups.items(), key=lambda group: list(Verdict).index(group[1][0].verdict))
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
    for verdict in (Verdict.BETTER, Verdict.WORSE):
        metrics = [BY_NAME[result.metric].word for result in shown_in(one, verdict)]
        if metrics:
            words.append(f"{verdict.value} in {listed(metrics)}")
    return " but ".join(words)


def _subject(found: list[Judged]) -> str:
    """The labels while they are few, their number and the first otherwise, with the verb."""
    if len(found) > FEW_LABELS:
        return f"{len(found)} values, {found[0].label} most of all, are"
    return f"{_labels(found)} {'is' if len(found) == 1 else 'are'}"


def _extent(found: list[Judged]) -> str:
    """By how much, where it is one metric that differs."""
    results = [*shown_in(found[0], Verdict.BETTER), *shown_in(found[0], Verdict.WORSE)]
    if len(results) != 1:
        return ""
    return f" ({'up to ' if len(found) > 1 else ''}{percent(results[0].relative)})"


def _as_good(study: Study) -> str:
    """The values that are as good as the base in the first metric, within the margin."""
    found = of_verdict(study, Verdict.AS_GOOD)
    if not found:
        return ""
    result = found[0].first_result
    word = BY_NAME[result.metric].word if result else ""
    return (
        f"{_subject(found)} as good as the base ({study.sweep.base_value}) in {word}, "
        f"within {magnitude(study.margin)}{_smaller(study, found)}"
    )


def _no_difference(study: Study) -> str:
    found = of_verdict(study, Verdict.NONE_SHOWN)
    if not found:
        return ""
    if len(found) == len([one for one in study.values if one.verdict is not Verdict.BASE]):
        text = (
            f"no difference seen between {_labels(found)} and the base ({study.sweep.base_value})"
        )
    else:
        text = f"no difference seen for {_labels(found)}"
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
        results = [r for one in found if (r := one.result(metric.name)) and r.detectable > 0]
        if metric.judged and results and all(r.base_mean for r in results):
            largest = max(r.share(r.detectable) for r in results)
            told.append(f"{magnitude(largest)} in {metric.word}")
    if not told:
        return ""
    return f" (it would have been seen from {listed(told[:MOST_TOLD])})"


def _ended_early(study: Study) -> list[str]:
    """One part for each value that ended early, or their number where they are many."""
    found = of_verdict(study, Verdict.ENDED_EARLY)
    if len(found) > FEW_LABELS:
        return [f"{len(found)} values ended early, worse than the base ({study.sweep.base_value})"]
    return [f"{one.label} {one.reason}" for one in found]


def _not_ranked(study: Study) -> str:
    found = of_verdict(study, Verdict.NOT_RANKED)
    if not found:
        return ""
    failed = [one for one in found if not one.run.complete]
    if len(failed) == len(found):
        return f"{_labels(found)} {'was' if len(found) == 1 else 'were'} not trained to the end"
    return f"{_labels(found)} could not be ranked"


def _evidence(study: Study) -> str:
    """What the verdicts rest on: seeds, pairs, and the one error rate."""
    if study.base is None:
        return ""
    results = [one for value in study.values if (one := value.first_result)]
    if not results:
        if not study.floor.reason:
            return ""
        advice = "train base and values under several seeds (study.seeds=3)"
        if study.floor.seeds >= 2:
            advice = "look at the learning rate at work below, and train for longer"
        return f"Nothing can be called better or worse: {study.floor.reason}. {_big(advice)}."
    rate = (
        f"Over all values and metrics together {ALPHA * 100:.0f} in 100 such studies show a "
        "difference where there is none."
    )
    counts = sorted({one.seeds for one in results})
    told = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    how = f"Each value was trained under {told} seeds and compared with the base's same seeds."
    if counts == [1]:
        how = (
            "Each value was trained under one seed, so a difference is held against what another "
            "seed does to the base; pairs under the same seeds see far more (study.seeds=3)."
        )
    return f"{how} {rate}"


def _trends(study: Study) -> str:
    """Metrics that rise or fall with the values."""
    told, step = [], ""
    for trend in study.trends:
        if not trend.shown or not BY_NAME[trend.metric].judged:
            continue
        step = "each doubling" if trend.by_factor else "each step of 1"
        results = [r for one in study.values if (r := one.result(trend.metric))]
        base = results[0].base_mean if results else 0.0
        size = percent(trend.slope / abs(base)) if base else signed(trend.slope)
        way = "rises" if trend.slope > 0 else "falls"
        told.append(f"{BY_NAME[trend.metric].title} {way} ({size})")
    return f"With {step} of {study.sweep.parameter}: {'; '.join(told)}." if told else ""


def _next_step(study: Study) -> str:
    """What to do where a value was not shown to differ from the base."""
    results = [one for value in study.values if (one := value.first_result) is not None]
    still_open = [one for one in results if one.verdict is Verdict.NONE_SHOWN]
    if not still_open:
        return _margin_met(study)
    seeds = min(one.seeds for one in still_open)
    if seeds < 2:
        return "Next step: study.seeds=3 trains base and values under three seeds each."
    told = [one for one in still_open if one.more_seeds]
    if told:
        return _with_more_seeds(study, max(told, key=lambda one: one.detectable))
    return f"Next step: more seeds see smaller differences ({_setting(study, 2 * seeds)})."


def _with_more_seeds(study: Study, result: MetricResult) -> str:
    """What more seeds would show; where that is little, that more images or prompts are needed."""
    metric, seeds = BY_NAME[result.metric], result.seeds
    wanted, needed = f"{WANTED * 100:.0f} %", result.seeds_needed
    if 0 < needed <= seeds:
        return (
            f"A difference of {wanted} in {metric.word} would have been seen. Next step, if a "
            f"smaller one matters: more seeds ({_setting(study, 2 * seeds)})."
        )
    if 0 < needed <= MANY_TIMES * seeds:
        return (
            f"Next step: {needed} seeds instead of {seeds} would show a difference of {wanted} in "
            f"{metric.word} ({_setting(study, needed)})."
        )
    more = f"{result.more_seeds} seeds instead of {seeds}"
    now, then = (_told(result, one) for one in (result.detectable, result.more_detectable))
    reach = f"a difference from {then} in {metric.word}, now from {now}"
    if result.more_detectable <= HARDLY * result.detectable:
        far = f"; {wanted} would take {_setting(study, needed)}" if needed else ""
        return f"Next step: {more} would show {reach} ({_setting(study, result.more_seeds)}){far}."
    where = "data.held_out_dir" if metric.is_loss else "metrics.prompts" if metric.against else ""
    return (
        f"Next step: measure on more than {result.clusters} {metric.cluster}s"
        f"{f' ({where})' if where else ''}; {more} would hardly help: they would show {reach}."
    )


def _told(result: MetricResult, difference: float) -> str:
    """A difference as a share of the base's mean where it has one."""
    return magnitude(result.share(difference)) if result.base_mean else plain(difference)


def _setting(study: Study, seeds: int) -> str:
    """The setting that asks for so many seeds."""
    most = study.sweep.max_seeds
    return f"{'study.max_seeds' if most and seeds > most else 'study.seeds'}={seeds}"


def _margin_met(study: Study) -> str:
    """Nothing is left open: every value is as good, within the margin."""
    found = [one for one in study.values if one.verdict is not Verdict.BASE]
    if not found or any(one.verdict is not Verdict.AS_GOOD for one in found):
        return ""
    return (
        f"No more runs are needed: {'every value is' if len(found) > 1 else 'the value is'} "
        f"within {magnitude(study.margin)} of the base. To tell smaller differences, "
        "set a smaller study.margin and train more seeds."
    )


def _big(text: str) -> str:
    return text[:1].upper() + text[1:]


def _cost(study: Study) -> str:
    """The smallest file among the values that were not shown to be worse."""
    if study.base is None:
        return ""
    fit = [
        one
        for verdict in (Verdict.BETTER, Verdict.AS_GOOD, Verdict.NONE_SHOWN)
        for one in of_verdict(study, verdict)
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
