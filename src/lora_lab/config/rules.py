"""Ranges of settings, each a key, what is allowed in words, and a test of the value."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lora_lab.errors import LONGEST_VALUE, printable


@dataclass(frozen=True)
class Rule:
    """One range: the key, what is allowed in words, and the test of a value."""

    key: str
    allowed: str
    holds: Callable[[Any], bool]


def at_least(key: str, low: float) -> Rule:
    """A finite number, ``low`` or more."""
    return Rule(key, f">= {low}", lambda value: math.isfinite(value) and value >= low)


def above(key: str, low: float) -> Rule:
    """A finite number above ``low``."""
    return Rule(key, f"> {low}", lambda value: math.isfinite(value) and value > low)


LONGEST_PROMPT = 10_000
"""Characters of a prompt; CLIP reads 75 tokens at a time, which are about 300."""


def prompt(key: str) -> Rule:
    """A prompt that is not empty and can be read in a moment."""
    return Rule(
        key,
        f"text of 1 to {LONGEST_PROMPT} characters",
        lambda value: bool(value.strip()) and len(value) <= LONGEST_PROMPT,
    )


def between(key: str, low: float, high: float) -> Rule:
    """A number from ``low`` to ``high``."""
    return Rule(key, f"from {low} to {high}", lambda value: low <= value <= high)


def one_of(key: str, choices: tuple[str, ...]) -> Rule:
    """One of a few words."""
    return Rule(key, f"one of {', '.join(choices)}", lambda value: value in choices)


def or_null(rule: Rule) -> Rule:
    """The rule, or null."""
    return Rule(
        rule.key, f"{rule.allowed} or null", lambda value: value is None or rule.holds(value)
    )


def text(key: str) -> Rule:
    """Text that is not empty."""
    return Rule(key, "text that is not empty", lambda value: bool(value.strip()))


def broken(section: object, rules: tuple[Rule, ...], prefix: str = "") -> list[str]:
    """Return one line for each rule that doesn't hold.

    Args:
        section: The dataclass whose keys the rules name, relative to it.
        rules: What to check.
        prefix: The section's own key with its dot, such as ``network.``.
    """
    problems = []
    for rule in rules:
        value = section
        for name in rule.key.split("."):
            value = getattr(value, name)
        if not rule.holds(value):
            problems.append(f"{prefix}{rule.key} must be {rule.allowed}, got {shown(value)}")
    return problems


def shown(value: object) -> str:
    """Return a value as error messages spell it, cut where it is long."""
    return printable("null" if value is None else repr(value), LONGEST_VALUE)
