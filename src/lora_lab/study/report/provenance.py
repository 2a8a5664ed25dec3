"""Where the figures come from: inputs, versions, the command; and what went wrong."""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from lora_lab.study.judge.comparable import FINGERPRINTS
from lora_lab.study.judge.verdict import NOT_MEASURED, Judged, Study
from lora_lab.study.report.spelling import listed

_SECRET = re.compile(r"(^|[._])(api_?key|key|token|secret|password)$", re.IGNORECASE)
SHOWN_DIGITS = 16


@dataclass(frozen=True)
class Fact:
    """One line of the provenance table."""

    name: str
    value: str
    differing: str = ""
    """Which runs have another value; empty when all have the same."""


@dataclass(frozen=True)
class Problem:
    """A run that something is wrong with."""

    label: str
    name: str
    status: str
    sentences: tuple[str, ...]


def command(study: Study) -> str:
    """The command that makes this sweep again; a secret among its settings is left out."""
    sweep = study.sweep
    if sweep.command:
        return sweep.command
    words = ["python", "train.py", "-m"]
    if len(study.parameters) == 1:
        words.append(f"{sweep.parameter}={','.join(sweep.values)}")
    else:
        words += [f"{name}=…" for name in study.parameters]
    for override in (*sweep.overrides, *sweep.launcher):
        key, equals, _ = override.partition("=")
        words.append(f"{key}=(hidden)" if equals and _SECRET.search(key) else override)
    return " ".join(word if word.endswith("=…") else shlex.quote(word) for word in words)


def fingerprint_facts(study: Study) -> list[Fact]:
    """The inputs' fingerprints in the base, and which runs have others."""
    known = {name for one in study.judged for name in one.run.record.fingerprints}
    names = FINGERPRINTS if known & set(FINGERPRINTS) or not known else sorted(known)
    return [_fact(study, name, _entry("fingerprints", name)) for name in names]


def version_facts(study: Study) -> list[Fact]:
    """Device, commit and versions of the base, and which runs have others."""
    names = sorted({name for one in study.judged for name in one.run.record.versions})
    facts = [
        _fact(study, "device", lambda one: one.run.record.device),
        _fact(study, "git commit", lambda one: _short(one.run.record.git_commit)),
    ]
    facts += [_fact(study, name, _entry("versions", name)) for name in names]
    return [fact for fact in facts if not study.sweep.command or fact.value != "not recorded"]


def _short(commit: str) -> str:
    """A commit's first digits; a + at the end, for changes beyond it, stays."""
    return commit[:12] + ("+" if commit.endswith("+") else "")


def _entry(group: str, name: str) -> Callable[[Judged], str]:
    """Take one entry of a run's fingerprints or versions."""

    def take(one: Judged) -> str:
        record = one.run.record
        entries = record.fingerprints if group == "fingerprints" else record.versions
        return entries.get(name, "")

    return take


def problems(study: Study) -> list[Problem]:
    """Runs that failed, are missing, damaged or not comparable, with every reason."""
    found = []
    for one in study.judged:
        told = bool(one.run.ended_early) or _only_floor(one, study)  # elsewhere, as no problem
        reasons = [one.reason] if one.reason and not told else []
        sentences = tuple(dict.fromkeys([*reasons, *one.run.notes]))
        if sentences:
            found.append(Problem(one.label, one.run.name, one.run.status, sentences))
    return found


def _only_floor(one: Judged, study: Study) -> bool:
    """Whether the run itself is well and only the study lacks a floor."""
    if study.sweep.command and one.reason == NOT_MEASURED:
        return True  # the page says so at its top: other logs never hold them
    return bool(study.floor.reason) and one.reason.endswith(study.floor.reason)


def _fact(study: Study, name: str, take: Callable[[Judged], str]) -> Fact:
    known = [one for one in study.judged if one.run.status != "missing"]
    reference = study.base or (known[0] if known else None)
    if reference is None:
        return Fact(name, "not recorded")
    value = take(reference)
    others = [one.label for one in known if take(one) != value]
    return Fact(name, value[:SHOWN_DIGITS] or "not recorded", listed(others, 4) if others else "")
