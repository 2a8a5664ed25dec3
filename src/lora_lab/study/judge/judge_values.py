"""All values in all metrics against the base: the decision of docs/verdicts.md.

Values with equally many seeds stand in one family a metric. The first metric gets most of the error
rate, values that were trained under other numbers of seeds share it by their number. Where seeds
are added round by round, each round spends its part of the error rate on the values still open.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_lab.config.metrics import BY_NAME, METRICS, Metric
from lora_lab.run_folder.scores_file import NO_ANCHORS, Anchors
from lora_lab.statistics.crossed import (
    Array,
    Effects,
    crossed_effects,
    scale_of,
    stack,
    trend_table,
)
from lora_lab.statistics.family import (
    ALPHA,
    LOOK_GROWTH,
    decide,
    equivalent,
    look_levels,
    metric_levels,
    metric_shares,
    p_values,
)
from lora_lab.statistics.paired import mean_of
from lora_lab.statistics.power import detectable, detectable_with, seeds_for
from lora_lab.study.judge.metric_results import UNJUDGED, MetricResult, Trend, Verdict
from lora_lab.study.judge.paired_runs import Measured, ValueRuns, measure_value, trend_scores
from lora_lab.study.read.load import Run

WANTED = 0.01
"""The report says how many seeds would show a difference of this share of the base's mean."""
NEXT_SEEDS = 5
"""It also says what at least so many seeds would show, where that takes too many."""
DECIDED = (Verdict.BETTER, Verdict.WORSE, Verdict.AS_GOOD)


@dataclass(frozen=True)
class Looks:
    """When a sweep that adds seeds round by round looks at its values."""

    seeds: tuple[tuple[int, ...], ...]
    """The seeds that each look sees, growing; one look without `study.max_seeds`."""
    counts: tuple[int, ...]
    """Seeds at each look that was planned, the last one at most `study.max_seeds`."""
    alpha: float = ALPHA
    """Probability of any false verdict over all looks."""


@dataclass(frozen=True)
class Judgement:
    """What was found of all values."""

    results: Mapping[str, tuple[MetricResult, ...]]
    """Value -> its results, in the order of METRICS."""
    trends: tuple[Trend, ...] = ()


Family = tuple[str, int]
"""Metric and number of seeds."""


def judge_values(
    values: Sequence[ValueRuns],
    base: Sequence[Run],
    base_value: str,
    looks: Looks,
    margin: float,
) -> Judgement:
    """Judge every value in every metric, look by look.

    Args:
        values: The runs of each value.
        base: Usable runs of the base, one a seed.
        base_value: The base's value of the parameter, as written.
        looks: Which seeds each look sees.
        margin: What doesn't matter, as a share of the base's mean.
    """
    levels = look_levels(looks.counts, looks.alpha)
    found: dict[str, dict[str, MetricResult]] = {value.value: {} for value in values}
    trends: dict[str, Trend] = {}
    seen: set[int] = set()
    for seeds, level in zip(looks.seeds, levels, strict=False):
        still_open = [
            value
            for value in values
            if not _decided(found[value.value])
            and (not seen or any(pair.seed in set(seeds) - seen for pair in value.pairs))
        ]
        seen |= set(seeds)
        new, told = _look([v.under(seeds) for v in still_open], base, base_value, level, margin)
        for value, results in new.items():
            shown = {m: r for m, r in found[value].items() if r.verdict in DECIDED}
            found[value] |= results | shown
        trends |= {trend.metric: trend for trend in told if not _shown(trends.get(trend.metric))}
    order = [metric.name for metric in METRICS]
    return Judgement(
        {
            value: tuple(sorted(results.values(), key=lambda one: order.index(one.metric)))
            for value, results in found.items()
        },
        tuple(sorted(trends.values(), key=lambda one: order.index(one.metric))),
    )


def primary_metric(results: Mapping[str, MetricResult]) -> MetricResult | None:
    """The result of a value in the first judged metric that could be judged."""
    for metric in METRICS:
        result = results.get(metric.name)
        if metric.judged and result is not None and result.verdict not in UNJUDGED:
            return result
    return None


def _decided(results: Mapping[str, MetricResult]) -> bool:
    first = primary_metric(results)
    return first is not None and first.verdict in DECIDED


def _shown(trend: Trend | None) -> bool:
    return trend is not None and trend.shown


def _look(
    values: Sequence[ValueRuns],
    base: Sequence[Run],
    base_value: str,
    alpha: float,
    margin: float,
) -> tuple[dict[str, dict[str, MetricResult]], list[Trend]]:
    """One look at some values with a given error rate."""
    measured: dict[str, dict[str, Measured]] = {}
    for metric in METRICS:
        found = {v.value: one for v in values if (one := measure_value(v, metric, base))}
        if found:
            measured[metric.name] = found
    families = _families(measured)
    trends: dict[Family, _TrendTable] = {}
    effects: dict[Family, Effects] = {}
    for (name, seeds), members in families.items():
        parts = [e for v in members if (e := measured[name][v].effects) is not None]
        if seeds >= 2 and len(members) == len(values):
            trend = _trend_table(values, BY_NAME[name], base_value)
            if trend is not None:
                trends[name, seeds] = trend
                parts.append(trend.effects)
        effects[name, seeds] = stack(parts)
    levels = _levels(families, effects, alpha)
    results: dict[str, dict[str, MetricResult]] = {value.value: {} for value in values}
    means = {name: _base_mean(base, name) for name in measured}
    anchors = {name: _anchors(base, name) for name in measured}
    for name, found in measured.items():
        for value, one in found.items():
            results[value][name] = MetricResult(
                value=value,
                metric=name,
                verdict=Verdict.NOT_RANKED,
                mean=one.mean,
                base_mean=means[name],
                floor=anchors[name].floor,
                ceiling=anchors[name].ceiling,
                by_seed=one.by_seed,
                reason=one.reason,
                remark=one.remark,
            )
    told = []
    for family, members in families.items():
        name, _ = family
        mean = abs(means[name])
        metric, size = BY_NAME[name], WANTED * mean
        rows = _decide(metric, effects[family], len(members), levels[family], margin * mean, size)
        for value, row in zip(members, rows, strict=False):
            results[value][name] = replace(results[value][name], **row)
        if family in trends:
            told.append(_trend(name, trends[family], rows[-1]))
    return results, told


def _decide(
    metric: Metric, effects: Effects, values: int, level: float, margin: float, size: float
) -> list[dict[str, Any]]:
    """What a family's test says, as fields of a MetricResult, one a member.

    Args:
        metric: Which one.
        effects: The family, with its trend last where there is one.
        values: How many of its members are values.
        level: Its error rate.
        margin: The difference that doesn't matter.
        size: The difference that more seeds are to show.
    """
    decisions, p = decide(effects, level), p_values(effects)
    width = decisions.half_width
    reach = detectable(effects, width)
    as_good = equivalent(effects, margin, level) if margin > 0 else np.zeros(len(effects), bool)
    still_open = ~(decisions.shown | as_good)[:values]
    open_place, proposal = _more_seeds(effects, still_open, reach, size, level)
    rows: list[dict[str, Any]] = []
    for place, effect in enumerate(map(float, effects.effect)):
        verdict = Verdict.NONE_SHOWN
        if decisions.shown[place]:
            verdict = Verdict.BETTER if (effect < 0) == metric.lower_is_better else Verdict.WORSE
        elif as_good[place]:
            verdict = Verdict.AS_GOOD
        rows.append(
            {
                "verdict": verdict,
                "effect": effect,
                "low": effect - float(width[place]),
                "high": effect + float(width[place]),
                "p": float(p[place]),
                "level": level,
                "detectable": float(reach[place]),
                "seeds": int(effects.seeds[place]),
                "clusters": int(effects.clusters[place]),
                **(proposal if place == open_place else {}),
            }
        )
    return rows


def _families(measured: Mapping[str, Mapping[str, Measured]]) -> dict[Family, list[str]]:
    """(metric, number of seeds) -> the values that can be judged."""
    found: dict[Family, list[str]] = {}
    for name, values in measured.items():
        for value, one in values.items():
            if one.effects is not None:
                found.setdefault((name, int(one.effects.seeds[0])), []).append(value)
    return found


def _more_seeds(
    effects: Effects, still_open: NDArray[np.bool_], reach: Array, size: float, level: float
) -> tuple[int, dict[str, Any]]:
    """The open value that was seen least clearly, and what more seeds would show of it.

    Returns:
        Its place and fields of its MetricResult; (-1, {}) where no value is open.
    """
    places = np.flatnonzero(still_open & (effects.seeds[: len(still_open)] >= 2))
    if not len(places):
        return -1, {}
    place = int(places[np.argmax(reach[places])])
    needed = seeds_for(effects, place, size, level) if size > 0 else None
    more = max(NEXT_SEEDS, math.ceil(LOOK_GROWTH * int(effects.seeds[place])))
    would_show = float(detectable_with(effects, more, level)[place])
    return place, {
        "seeds_needed": needed or 0,
        "more_seeds": more,
        "more_detectable": would_show,
    }


def _levels(
    families: Mapping[Family, Sequence[str]], effects: Mapping[Family, Effects], alpha: float
) -> dict[Family, float]:
    """Error rate of each family; a metric that isn't judged takes nothing from the others."""
    judged = {family: one for family, one in effects.items() if BY_NAME[family[0]].judged}
    shares = metric_shares(list(dict.fromkeys(name for name, _ in judged)))
    counts = {name: sum(len(families[f]) for f in judged if f[0] == name) for name in shares}
    parts = {f: shares[f[0]] * len(families[f]) / counts[f[0]] for f in judged}
    return {**dict.fromkeys(effects, alpha), **metric_levels(judged, parts, alpha)}


@dataclass(frozen=True)
class _TrendTable:
    """The linear trend of a metric over the values, base among them."""

    effects: Effects
    steps: float
    """What a slope is multiplied with to give the effect."""
    by_factor: bool


def _trend_table(
    values: Sequence[ValueRuns], metric: Metric, base_value: str
) -> _TrendTable | None:
    """The trend where all values are numbers; None where they aren't, or are fewer than two."""
    try:
        numbers = np.array([float(base_value), *(float(value.value) for value in values)])
    except ValueError:
        return None
    if len(numbers) < 3 or not np.isfinite(numbers).all():
        return None
    scores = trend_scores(values, metric)
    if scores is None:
        return None
    places = scale_of(numbers)
    steps = math.sqrt(2 * float(((places - places.mean()) ** 2).sum()))
    by_factor = bool((places != numbers).any())
    return _TrendTable(crossed_effects(trend_table(scores, places)[None]), steps, by_factor)


def _trend(metric: str, table: _TrendTable, row: Mapping[str, Any]) -> Trend:
    return Trend(
        metric=metric,
        slope=row["effect"] / table.steps,
        low=row["low"] / table.steps,
        high=row["high"] / table.steps,
        by_factor=table.by_factor,
        shown=row["verdict"] in (Verdict.BETTER, Verdict.WORSE),
        seeds=row["seeds"],
    )


def _anchors(base: Sequence[Run], metric: str) -> Anchors:
    """Floor and ceiling of a metric of identity, which are the same in all runs of a study."""
    return next((run.anchors[metric] for run in base if metric in run.anchors), NO_ANCHORS)


def _base_mean(base: Sequence[Run], metric: str) -> float:
    scores = [run.scores[metric] for run in base if run.scores.get(metric)]
    return float(np.mean([mean_of(one) for one in scores])) if scores else math.nan
