"""`a AND b :0.5`: several prompts that steer one image together (arXiv 2206.01714)."""

import re
from dataclasses import dataclass

_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r"\s*:\s*([-+]?(?:\d+\.?\d*|\.\d+))\s*$")


@dataclass(frozen=True)
class SubPrompt:
    """One of the prompts of a composition."""

    text: str
    weight: float
    """Factor on its direction away from the negative prompt; 1 for a prompt alone."""


def split_composition(text: str) -> tuple[SubPrompt, ...]:
    """Split a prompt at `AND`. Never fails.

    A number behind a colon at a part's end is its weight, as the web UI has it, also where there is
    only one part: `a cat :1.2`.

    Returns:
        One part at least.
    """
    parts = []
    for part in _AND.split(text):
        weight = _WEIGHT.search(part)
        words = part[: weight.start()] if weight else part
        parts.append(SubPrompt(words, float(weight[1]) if weight else 1.0))
    return tuple(parts)
