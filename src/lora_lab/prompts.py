r"""Prompts as AUTOMATIC1111's web UI reads them.

`(x)` times 1.1, `[x]` divided by 1.1, `(x:1.3)` times 1.3, `\(` a bracket that is only a bracket,
`BREAK` a new chunk, `<lora:name:0.8>` a LoRA and its weight. Any text is a valid prompt: what is
not closed holds to the end, what was never opened is text.

Text longer than 75 tokens is encoded in chunks of 75, each between the start and the end token.
`{a|b}` and `__name__` are choices, made before anything else by `expand_choices`.

Shapes: T chunks of the prompt, C hidden size of the text encoder.
"""

import random
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from lora_lab.errors import LabError

CHUNK = 75
"""Tokens in a chunk, without the start and the end token."""
COMMA_BACKTRACK = 20
"""A full chunk is cut after its last comma if fewer tokens than these stand behind it (A1111)."""
BREAK = "BREAK"
_ROUND = 1.1
_SQUARE = 1 / 1.1
_ROUNDING = 1e-5

_LORA = re.compile(r"<lora:([^:<>]+)(?::([^:<>]*))?(?::[^<>]*)?>")
_PIECE = re.compile(
    r"\\([()\[\]\\])"  # 1: an escaped sign
    r"|([(\[])"  # 2: opens
    r"|:\s*([+-]?\d*\.?\d+)\s*\)"  # 3: a weight, and closes
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
    loras: tuple[tuple[str, float], ...]
    """(name, weight) of each `<lora:name:weight>`, in order."""


@dataclass(frozen=True)
class Chunks:
    """A prompt as the text encoder takes it."""

    input_ids: Tensor
    """int64, (T, 77)."""
    weights: Tensor
    """fp32, (T, 77)."""


def parse_prompt(text: str) -> ParsedPrompt:
    """Take a prompt apart into weighted text and LoRAs. Never fails."""
    loras = tuple((m[1].strip(), _number(m[2])) for m in _LORA.finditer(text))
    pieces = _weighted_pieces(_LORA.sub("", text))
    return ParsedPrompt(pieces=tuple(_joined(pieces)), loras=loras)


def _number(text: str | None) -> float:
    """The weight in `<lora:name:weight>`; 1 where there is none or it is not a number."""
    if text is None or not re.fullmatch(r"\s*[+-]?\d*\.?\d+\s*", text):
        return 1.0
    return float(text)


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
        escaped, opens, weight, closes, chunk, plain = match.groups()
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
            pieces.append((escaped or plain or match[0], 1.0))
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


def tokenize(parsed: ParsedPrompt, tokenizer: CLIPTokenizer) -> Chunks:
    """Cut a prompt into chunks of 75 tokens.

    A chunk ends early at BREAK, or after a comma that stands among its last 20 tokens.
    """
    comma = tokenizer.get_vocab()[",</w>"]
    chunks: list[list[tuple[int, float]]] = [[]]
    for piece in parsed.pieces:
        if piece is None:
            chunks.append([])
            continue
        # verbose=False: the prompt may be longer than 77 tokens, it is cut here.
        for token in tokenizer(piece[0], add_special_tokens=False, verbose=False).input_ids:
            if len(chunks[-1]) == CHUNK:
                full = chunks[-1]
                chunks.append([] if token == comma else _after_last_comma(full, comma))
            chunks[-1].append((token, piece[1]))
    if not chunks[-1] and len(chunks) > 1:
        chunks.pop()
    return _padded(chunks, int(tokenizer.bos_token_id), int(tokenizer.eos_token_id))


def _after_last_comma(chunk: list[tuple[int, float]], comma: int) -> list[tuple[int, float]]:
    """Cut off and return the tokens behind a full chunk's last comma, if they are few."""
    for behind in range(COMMA_BACKTRACK):
        if chunk[-1 - behind][0] == comma:
            moved = chunk[len(chunk) - behind :]
            del chunk[len(chunk) - behind :]
            return moved
    return []


def _padded(chunks: list[list[tuple[int, float]]], start: int, end: int) -> Chunks:
    input_ids = torch.full((len(chunks), CHUNK + 2), end, dtype=torch.int64)
    weights = torch.ones(len(chunks), CHUNK + 2)
    input_ids[:, 0] = start
    for row, chunk in enumerate(chunks):
        if chunk:
            ids, values = zip(*chunk, strict=True)
            input_ids[row, 1 : 1 + len(chunk)] = torch.tensor(ids)
            weights[row, 1 : 1 + len(chunk)] = torch.tensor(values)
    return Chunks(input_ids, weights)


def apply_weights(hidden: Tensor, weights: Tensor) -> Tensor:
    """Multiply hidden states by the tokens' weights and bring each chunk's mean back.

    z' = z * w, z'' = z' * mean(z) / mean(z'), as A1111's default ("Original") emphasis does. Where
    a mean is zero up to rounding, their ratio means nothing and is left out: a layer norm that was
    not trained gives such means.

    Args:
        hidden: (T, 77, C).
        weights: (T, 77).

    Returns:
        (T, 77, C); bit for bit `hidden` where all weights of a chunk are 1.
    """
    weighted = hidden * weights[..., None]
    before = hidden.mean(dim=(1, 2), keepdim=True)
    after = weighted.mean(dim=(1, 2), keepdim=True)
    rounding = _ROUNDING * hidden.abs().mean(dim=(1, 2), keepdim=True)
    meaningful = (before.abs() > rounding) & (after.abs() > rounding)
    ratio = torch.where(meaningful, before / after, torch.ones_like(after))
    return torch.where((weights == 1).all(dim=1)[:, None, None], hidden, weighted * ratio)


def expand_choices(text: str, seed: int, folder: Path | None = None) -> str:
    """Make the choices of a prompt: `{a|b|c}`, and `__name__` from the lines of name.txt.

    Choices may stand inside choices. `{a}` without a bar stays as it is.

    Args:
        text: The prompt.
        seed: The same seed makes the same choices.
        folder: Where the .txt files are; None leaves `__name__` as it is.

    Raises:
        LabError: A wildcard file is missing or has no lines.
    """
    choose = random.Random(seed)
    inner = re.compile(r"\{([^{}]*\|[^{}]*)\}")
    for _ in range(100):  # lines may name further wildcards; a circle ends here
        before = text
        if folder is not None:
            text = re.sub(r"__([\w-]+)__", lambda m: _wildcard(folder, m[1], choose), text)
        text = inner.sub(lambda m: choose.choice(m[1].split("|")).strip(), text)
        if text == before:
            break
    return text


def _wildcard(folder: Path, name: str, choose: random.Random) -> str:
    path = folder / f"{name}.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LabError(f"{path} for the wildcard __{name}__ cannot be read ({reason})") from None
    lines = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not lines:
        raise LabError(f"{path} for the wildcard __{name}__ is empty: put one choice a line")
    return choose.choice(lines)
