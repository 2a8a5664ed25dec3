"""The first line of a report: what was found, in at most fifteen words that a person can repeat."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lora_lab.config.metrics import BY_NAME
from lora_lab.study.judge.metric_results import MetricResult, Verdict
from lora_lab.study.judge.verdict import Judged, Study
from lora_lab.study.report.spelling import listed, magnitude

MOST_WORDS = 15
LONG = 20
"""A base value of so many characters is called the base."""
FEW_NAMES = 3
"""More values than this are counted, not named."""
SHOWN = (Verdict.BETTER, Verdict.WORSE)
COUNTED = (
    (Verdict.BETTER, "better"),
    (Verdict.AS_GOOD, "as good"),
    (Verdict.MIXED, "better and worse"),
    (Verdict.WORSE, "worse"),
    (Verdict.ENDED_EARLY, "worse early on"),
    (Verdict.NONE_SHOWN, "undecided"),
)
NOTICEABLE = 0.95
"""A file below this share of the base's is worth a word."""
FRACTIONS = (
    *((1 / 2, "half"), (1 / 3, "a third"), (2 / 3, "two thirds"), (1 / 4, "a quarter")),
    *((3 / 4, "three quarters"), (1 / 5, "a fifth"), (1 / 6, "a sixth")),
    *((1 / 8, "an eighth"), (1 / 10, "a tenth"), (1 / 16, "a sixteenth")),
)
NEAR = 0.06
"""A share is called by a fraction that lies so near to it, as a part of the fraction."""


@dataclass(frozen=True)
class Part:
    """One part of the sentence, with the values named by the parameter or not."""

    values: str
    verb: str
    """What they do, without the base."""
    base: str
    """How the base joins where the part is the first one."""
    more: str
    """What is said where there is room."""

    def text(self, parameter: str, long: bool) -> str:
        """The part; with the parameter's name it is the first one and names the base."""
        words = [parameter, self.values, self.verb, self.base if parameter else ""]
        return " ".join(filter(None, [*words, self.more if long else ""]))


def short_sentence(study: Study) -> str:
    """What was found, in at most MOST_WORDS words; empty when no value could be judged."""
    values = [one for one in study.values if one.verdict not in (Verdict.BASE, Verdict.NOT_RANKED)]
    if not values:
        return ""
    if any(sum(one.verdict is verdict for one in values) > FEW_NAMES for verdict, _ in COUNTED):
        return _counted(study, values)
    parts = _parts(study, values)
    name = name_of(study.sweep.parameter)
    # What doesn't fit is left to the lines below: first the asides, then the last parts.
    for count in range(len(parts), 0, -1):
        for long in range(count, -1, -1):
            said = [
                part.text("" if place else name, place < long)
                for place, part in enumerate(parts[:count])
            ]
            text = "; ".join(said)
            if count_words(text) <= MOST_WORDS:
                return f"{text}."
    return _counted(study, values)


def count_words(text: str) -> int:
    """Words and numbers of a sentence; a percent sign is none."""
    return len(re.findall(r"\w\S*", text))


def name_of(parameter: str) -> str:
    """The parameter as people say it: dim for network.dim."""
    return "value" if "," in parameter else parameter.rpartition(".")[2]


def file_words(share: float) -> str:
    """A share of the base's file in words: at a quarter the size."""
    if not (math.isfinite(share) and 0 < share < NOTICEABLE):
        return ""
    for fraction, words in FRACTIONS:
        if abs(share - fraction) <= NEAR * fraction:
            return f"at {words} the size"
    return f"at {share * 100:.0f} % of the size"


def _parts(study: Study, values: Sequence[Judged]) -> list[Part]:
    """What is to be said, the most useful first."""
    metrics = {result.metric for one in values for result in shown_in(one)}
    where = f"in {BY_NAME[next(iter(metrics))].word}" if len(metrics) == 1 else ""
    base = _base_name(study)
    parts: list[Part] = []
    for verdict in (
        *(Verdict.BETTER, Verdict.AS_GOOD, Verdict.MIXED, Verdict.WORSE, Verdict.ENDED_EARLY),
        Verdict.NONE_SHOWN,
    ):
        found = [one for one in values if one.verdict is verdict]
        if not found:
            continue
        names, one = _named(found), len(found) == 1
        if verdict is Verdict.AS_GOOD:
            verb = f"{'does' if one else 'do'} as well as {base}"
            parts.append(Part(names, verb, "", _size(study, found)))
        elif verdict is Verdict.NONE_SHOWN:
            least = _least_seen(found)
            verb = f"{'shows' if one else 'show'} no difference"
            parts.append(Part(names, verb, f"from {base}", f"above {least}" if least else ""))
        elif verdict is Verdict.ENDED_EARLY:
            parts.append(Part(names, "ended early as worse", f"than {base}", ""))
        else:
            verb = f"{'is' if one else 'are'} {verdict.value}"
            than = f"than {base}" if verdict is not Verdict.MIXED else ""
            parts.append(Part(names, verb, than, where if not parts else ""))
    return parts


def _size(study: Study, found: Sequence[Judged]) -> str:
    """The smallest file among values that are as good, beside the base's."""
    base = study.base.measures.lora_bytes if study.base else math.nan
    smallest = min(found, key=lambda one: _bytes(one.measures.lora_bytes))
    words = file_words(smallest.measures.lora_bytes / base if base else math.nan)
    return words if len(found) == 1 or not words else f"({smallest.label} {words})"


def _counted(study: Study, values: Sequence[Judged]) -> str:
    """Numbers of values, where their names take too many words."""
    parts: list[str] = []
    for verdict, words in COUNTED:
        count = sum(one.verdict is verdict for one in values)
        if count and not parts:
            words = f"{'is' if count == 1 else 'are'} {words}"
        parts += [f"{count} {words}"] if count else []
    if not parts:
        return f"{len(values)} values show no difference from {_base_name(study)}."
    return f"Of {len(values)} values beside {_base_name(study)}, {listed(parts)}."


def _base_name(study: Study) -> str:
    return study.sweep.base_value if len(study.sweep.base_value) < LONG else "the base"


def shown_in(one: Judged) -> list[MetricResult]:
    """The results of a value in which a difference was shown."""
    return [r for r in one.results if BY_NAME[r.metric].judged and r.verdict in SHOWN]


def _named(found: Sequence[Judged]) -> str:
    """The values by name; their number where they are many."""
    if len(found) > FEW_NAMES:
        return f"{len(found)} values"
    return listed([one.run.value for one in found])


def _least_seen(found: Sequence[Judged]) -> str:
    """The difference in the first metric that would have been seen in each of some values."""
    shares = [
        result.share(result.detectable)
        for one in found
        if (result := one.first_result) is not None and result.detectable > 0 and result.base_mean
    ]
    return magnitude(max(shares)) if len(shares) == len(found) else ""


def _bytes(size: float) -> float:
    return size if math.isfinite(size) else math.inf
