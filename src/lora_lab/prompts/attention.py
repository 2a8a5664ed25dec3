r"""Weights in a prompt: `(x)` times 1.1, `[x]` divided by 1.1, `(x:1.3)` times 1.3, `BREAK`."""

import re
from dataclasses import dataclass

from lora_lab.prompts.networks import LoRATag, take_networks

_ROUND = 1.1
_SQUARE = 1 / 1.1

_PIECE = re.compile(
    r"\\([()\[\]\\]?)"  # 1: an escaped sign; a backslash alone is dropped
    r"|([(\[])"  # 2: opens
    r"|:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)"  # 3: a weight, and closes
    r"|([)\]])"  # 4: closes
    r"|\b(BREAK)\b"  # 5
    r"|([^\\()\[\]:B]+|.)",  # 6: text
    re.DOTALL,
)


@dataclass(frozen=True)
class ParsedPrompt:
    """A prompt taken apart."""

    pieces: tuple[tuple[str, float] | None, ...]
    """(text, weight) in order; None where a new chunk is asked for."""
    loras: tuple[LoRATag, ...]
    """What each `<lora:name:weight>` asks for, in order."""


def parse_prompt(text: str) -> ParsedPrompt:
    """Take a prompt apart into weighted text and LoRAs. Never fails."""
    text, networks = take_networks(text)
    pieces = _weighted_pieces(text)
    return ParsedPrompt(pieces=tuple(_joined(pieces)), loras=networks.loras)


def _weighted_pieces(text: str) -> list[tuple[str, float] | None]:
    """Pieces of text with their weights; brackets multiply what stands since they were opened."""
    pieces: list[tuple[str, float] | None] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(start: int, factor: float) -> None:
        for index in range(start, len(pieces)):
            piece = pieces[index]
            if piece is not None:
                pieces[index] = (piece[0], piece[1] * factor)

    for match in _PIECE.finditer(text):
        escaped, opens, weight, closes, chunk, _ = match.groups()
        if opens:
            opened[opens].append(len(pieces))
        elif weight and opened["("]:
            multiply(opened["("].pop(), float(weight))
        elif closes == ")" and opened["("]:
            multiply(opened["("].pop(), _ROUND)
        elif closes == "]" and opened["["]:
            multiply(opened["["].pop(), _SQUARE)
        elif chunk:
            pieces.append(None)
        else:
            pieces.append((match[0] if escaped is None else escaped, 1.0))
    for sign, factor in (("(", _ROUND), ("[", _SQUARE)):
        for start in opened[sign]:
            multiply(start, factor)
    return pieces


def _joined(pieces: list[tuple[str, float] | None]) -> list[tuple[str, float] | None]:
    """Neighbours of one weight put together, so that words are not cut by a bracket sign."""
    joined: list[tuple[str, float] | None] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if piece is not None and last is not None and last[1] == piece[1]:
            joined[-1] = (last[0] + piece[0], last[1])
        else:
            joined.append(piece)
    return joined


def plain_text(text: str) -> str:
    """The words of a prompt without weights and LoRAs, for labels and text metrics."""
    words = [piece[0] if piece is not None else " " for piece in parse_prompt(text).pieces]
    return re.sub(r"\s+", " ", "".join(words)).strip()
