"""What a person chose on blind.html, value by value, and which metrics agree."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lora_lab.config.metrics import METRICS
from lora_lab.statistics.bradley_terry import strengths
from lora_lab.study.judge.verdict import Study
from lora_lab.study.read.blind import METRIC, Answer, Blind, agreement


@dataclass(frozen=True)
class BlindRow:
    """One value."""

    value: str
    chosen: int
    lost: int
    ties: int
    strength: str
    verdict: str


@dataclass(frozen=True)
class BlindTable:
    """The choices of all values."""

    rows: tuple[BlindRow, ...]
    agreements: tuple[str, ...]
    """One sentence a metric that scores single images."""


def blind_table(study: Study, blind: Blind) -> BlindTable:
    """Count the choices.

    Args:
        study: Judged with the choices as a metric.
        blind: The choices.
    """
    values = list(dict.fromkeys(answer.one.run.value for answer in blind.answers))
    strength = _strengths(values, blind.answers)
    rows = []
    for place, value in enumerate(values):
        scores = [one.score for one in blind.answers if one.one.run.value == value]
        judged = next((one for one in study.values if one.run.value == value), None)
        result = judged.result(METRIC) if judged else None
        verdict = "not judged"
        if result is not None:
            verdict = result.verdict.value + (f": {result.reason}" if result.reason else "")
        counts = (scores.count(1.0), scores.count(0.0), scores.count(0.5))
        rows.append(BlindRow(value, *counts, _figure(strength[place]), verdict))
    of_base = f"{study.sweep.base_value} (base)", *_base_counts(blind)
    rows.append(BlindRow(*of_base, _figure(strength[-1]), "base"))
    told = []
    for metric in METRICS:
        agreed, count = agreement(blind.answers, metric.name)
        if metric.judged and count:
            share = 100 * agreed / count
            told.append(
                f"{metric.title} prefers the chosen picture in {agreed} of {count} choices "
                f"({share:.0f} %; 50 % is chance)."
            )
    return BlindTable(tuple(rows), tuple(told))


def _base_counts(blind: Blind) -> tuple[int, int, int]:
    scores = [answer.score for answer in blind.answers]
    return scores.count(0.0), scores.count(1.0), scores.count(0.5)


def _strengths(values: Sequence[str], answers: Sequence[Answer]) -> list[float]:
    """Of each value, and of the base at the end."""
    wins = np.zeros((len(values) + 1, len(values) + 1))
    for answer in answers:
        place = values.index(answer.one.run.value)
        wins[place, -1] += answer.score
        wins[-1, place] += 1 - answer.score
    return [float(one) for one in strengths(wins)]


def _figure(strength: float) -> str:
    return f"{strength:.2f}" if math.isfinite(strength) else "–"
