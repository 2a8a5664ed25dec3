r"""Prompts that change while an image is drawn, as the web UI changes them.

`[from:to:when]` is `from` up to step `when` and `to` afterwards; `[to:when]` and `[from::when]`
leave one out. `when` is a step, or with a decimal point a share of the steps. `[a|b|c]` takes
turns. These nest. Brackets that are none of this stay in the text: they are weights. Where brackets
do not pair, the web UI may read an edit beside them as text; here it is read as an edit.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Text = Callable[[int], str]
"""From a step, counted from 1, to the text in that step."""

_PLAIN = re.compile(r"(?:[^\\\[\]():|]|\\.)+")
_WHEN = re.compile(r"\s*([+-]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?)\s*")
_STRAY = "[]():"
_DEEPEST = 40
"""Brackets within brackets; deeper ones are read as text."""


@dataclass(frozen=True)
class Phase:
    """A part of the steps in which the text stays the same."""

    last_step: int
    """Counted from 1."""
    text: str


class _NoEditing(Exception):
    """The text can't be read as an edited prompt: the web UI then takes it as it stands."""


def edited_texts(text: str, steps: int) -> tuple[Phase, ...]:
    """The texts that a prompt becomes while an image is drawn. Never fails.

    Args:
        text: A prompt.
        steps: Sampling steps; >= 1.

    Returns:
        Phases in order; the last one ends at `steps`. A phase may have the text of the one before.
    """
    reader = _Reader(text, steps)
    try:
        at_step = _joined(list(reader.everything()))
    except _NoEditing:
        return (Phase(steps, text),)
    ends = sorted({end for end in reader.ends if 1 <= end < steps} | {steps})
    return tuple(Phase(end, at_step(end)) for end in ends)


def _joined(parts: list[Text]) -> Text:
    return lambda step: "".join(part(step) for part in parts)


class _Reader:
    """Reads a prompt from left to right.

    A bracket that can't be read costs one attempt only: where reading failed is remembered.
    """

    def __init__(self, text: str, steps: int) -> None:
        self.text = text
        self.steps = steps
        self.ends: set[int] = set()
        self._read: dict[int, tuple[Text, int, frozenset[int]] | None] = {}

    def everything(self) -> Iterator[Text]:
        """The parts of the whole prompt, brackets that lead nowhere included."""
        position = 0
        while position < len(self.text):
            parsed = self._element(position, 0)
            if parsed is not None:
                part, position, ends = parsed
                self.ends |= ends
                yield part
            elif self.text[position] in _STRAY:
                sign = self.text[position]
                yield lambda step, sign=sign: sign  # type: ignore[misc]
                position += 1
            else:
                raise _NoEditing

    def _element(self, position: int, depth: int) -> tuple[Text, int, frozenset[int]] | None:
        """Plain text or a bracket at a position: its text, where it ends, its steps."""
        plain = _PLAIN.match(self.text, position)
        if plain:
            words = plain[0]
            return (lambda step: words), plain.end(), frozenset()
        if position >= len(self.text) or self.text[position] not in "[(" or depth >= _DEEPEST:
            return None
        if position not in self._read:
            self._read[position] = self._bracket(position, depth)
        return self._read[position]

    def _sequence(self, position: int, depth: int) -> tuple[Text, int, frozenset[int]]:
        """As many elements as follow here; stops where no further one begins."""
        parts: list[Text] = []
        ends: frozenset[int] = frozenset()
        while (parsed := self._element(position, depth)) is not None:
            part, position, inner = parsed
            parts.append(part)
            ends |= inner
        return _joined(parts), position, ends

    def _bracket(self, start: int, depth: int) -> tuple[Text, int, frozenset[int]] | None:
        """What stands between a bracket and its partner; None if that can't be read."""
        opens = self.text[start]
        closes = "]" if opens == "[" else ")"
        parts: list[Text] = []
        edges = [start]
        ends: frozenset[int] = frozenset()
        while True:
            part, position, inner = self._sequence(edges[-1] + 1, depth + 1)
            parts.append(part)
            ends |= inner
            edges.append(position)
            if position >= len(self.text):
                return None
            if self.text[position] == closes:
                break
            if self.text[position] not in ":|":
                return None
        read = self._round(parts, edges) if opens == "(" else self._square(parts, edges)
        return None if read is None else (read[0], edges[-1] + 1, ends | read[1])

    def _round(self, parts: list[Text], edges: list[int]) -> tuple[Text, frozenset[int]] | None:
        """`(x)` and `(x:1.3)`: a weight, left as it stands."""
        separators = [self.text[edge] for edge in edges[1:-1]]
        if separators not in ([], [":"]):
            return None
        return (lambda step: f"({':'.join(part(step) for part in parts)})"), frozenset()

    def _square(self, parts: list[Text], edges: list[int]) -> tuple[Text, frozenset[int]] | None:
        """`[x]`, `[a|b]`, `[b:when]` and `[a:b:when]`."""
        separators = [self.text[edge] for edge in edges[1:-1]]
        if not separators:
            return (lambda step: f"[{parts[0](step)}]"), frozenset()
        if set(separators) == {"|"}:
            turns = frozenset(range(1, self.steps + 1))
            return (lambda step: parts[(step - 1) % len(parts)](step)), turns
        number = _WHEN.fullmatch(self.text, edges[-2] + 1, edges[-1])
        if number is None or separators not in ([":"], [":", ":"]):
            return None
        when = self._when(number[1])
        before = parts[0] if len(parts) == 3 else (lambda step: "")
        after = parts[-2]
        return (lambda step: (before if step <= when else after)(step)), frozenset({when})

    def _when(self, number: str) -> int:
        """The last step of what stands before; a share where there is a decimal point."""
        value = float(number) * (self.steps if "." in number else 1)
        return int(max(-1.0, min(float(self.steps), value)))
