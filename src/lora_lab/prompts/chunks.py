"""Prompts as tokens, in chunks of 75, and the weights of the tokens in what CLIP makes of them.

Shapes: T chunks of the prompt, S phases of an edited prompt, C hidden size of the text encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from ftfy import fix_text
from torch import Tensor
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from lora_lab.prompts.attention import ParsedPrompt
from lora_lab.prompts.embeddings import CHUNK, Embedding

COMMA_BACKTRACK = 20
"""A full chunk is cut after its last comma if fewer tokens than these stand behind it (A1111)."""
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Insert:
    """Vectors that take the place of tokens."""

    row: int
    column: int
    vectors: Tensor
    """(n, C)."""


@dataclass(frozen=True)
class Chunks:
    """A prompt as the text encoder takes it."""

    input_ids: Tensor
    """int64, (T, 77)."""
    weights: Tensor
    """fp32, (T, 77)."""
    inserts: tuple[Insert, ...] = ()
    """Where textual inversions stand."""


@dataclass
class _Chunk:
    """A chunk while it fills."""

    tokens: list[tuple[int, float]] = field(default_factory=list)
    """(token, weight)."""
    inserts: list[tuple[int, Embedding]] = field(default_factory=list)
    """(place among the tokens, embedding)."""
    last_comma: int | None = None


def token_ids(tokenizer: CLIPTokenizer, text: str) -> list[int]:
    """All tokens of a text, without ends.

    The text is cleaned by ftfy first, as OpenAI's own tokenizer does and with it the web UI and
    kohya: curly quotes become straight, ligatures letters, wide letters narrow ones.
    """
    cleaned = fix_text(text)
    # verbose=False: the text may be longer than 77 tokens, it is cut later
    return tokenizer(cleaned, add_special_tokens=False, verbose=False).input_ids


def tokenize(
    parsed: ParsedPrompt, tokenizer: CLIPTokenizer, embeddings: Sequence[Embedding] = ()
) -> Chunks:
    """Cut a prompt into chunks of 75 tokens.

    A chunk ends early at BREAK, after a comma that stands among its last 20 tokens, and before an
    embedding that doesn't fit into it.

    Args:
        parsed: The prompt.
        tokenizer: Of the text encoder.
        embeddings: Textual inversions; the longest name that stands in the prompt is taken.
    """
    comma = tokenizer.get_vocab()[",</w>"]
    known = _by_first_token(tokenizer, embeddings)
    chunks = [_Chunk()]
    for piece in parsed.pieces:
        if piece is None:
            chunks.append(_Chunk())
            continue
        tokens = token_ids(tokenizer, piece[0])
        position = 0
        while position < len(tokens):
            position += _take(chunks, tokens, position, piece[1], comma, known)
    if not chunks[-1].tokens and len(chunks) > 1:
        chunks.pop()
    return _padded(chunks, int(tokenizer.bos_token_id), int(tokenizer.eos_token_id))


def _by_first_token(
    tokenizer: CLIPTokenizer, embeddings: Sequence[Embedding]
) -> dict[int, list[tuple[list[int], Embedding]]]:
    """First token of a name -> (tokens of the name, embedding), the longest first."""
    known: dict[int, list[tuple[list[int], Embedding]]] = {}
    for embedding in embeddings:
        ids = token_ids(tokenizer, embedding.name)
        if ids:
            known.setdefault(ids[0], []).append((ids, embedding))
    for entries in known.values():
        entries.sort(key=lambda entry: len(entry[0]), reverse=True)
    return known


def _take(
    chunks: list[_Chunk],
    tokens: list[int],
    position: int,
    weight: float,
    comma: int,
    known: dict[int, list[tuple[list[int], Embedding]]],
) -> int:
    """Put the token or embedding at a position into the chunks; return how many tokens it took."""
    if tokens[position] == comma:
        chunks[-1].last_comma = len(chunks[-1].tokens)
    elif len(chunks[-1].tokens) == CHUNK:
        _cut_after_comma(chunks)
    if len(chunks[-1].tokens) == CHUNK:
        chunks.append(_Chunk())
    for ids, embedding in known.get(tokens[position], ()):
        if tokens[position : position + len(ids)] == ids:
            if len(chunks[-1].tokens) + len(embedding.vectors) > CHUNK:
                chunks.append(_Chunk())
            chunks[-1].inserts.append((len(chunks[-1].tokens), embedding))
            chunks[-1].tokens += [(0, weight)] * len(embedding.vectors)
            return len(ids)
    chunks[-1].tokens.append((tokens[position], weight))
    return 1


def _cut_after_comma(chunks: list[_Chunk]) -> None:
    """Move what stands behind a full chunk's last comma to a new chunk, if it is little."""
    full = chunks[-1]
    if full.last_comma is None or CHUNK - full.last_comma > COMMA_BACKTRACK:
        return
    edge = full.last_comma + 1
    moved = _Chunk(tokens=full.tokens[edge:])
    moved.inserts = [(place - edge, found) for place, found in full.inserts if place >= edge]
    full.inserts = [(place, found) for place, found in full.inserts if place < edge]
    del full.tokens[edge:]
    chunks.append(moved)


def _padded(chunks: list[_Chunk], start: int, end: int) -> Chunks:
    input_ids = torch.full((len(chunks), CHUNK + 2), end, dtype=torch.int64)
    weights = torch.ones(len(chunks), CHUNK + 2)
    inserts = []
    input_ids[:, 0] = start
    for row, chunk in enumerate(chunks):
        if chunk.tokens:
            ids, values = zip(*chunk.tokens, strict=True)
            input_ids[row, 1 : 1 + len(ids)] = torch.tensor(ids)
            weights[row, 1 : 1 + len(ids)] = torch.tensor(values)
        inserts += [Insert(row, 1 + place, found.vectors) for place, found in chunk.inserts]
    return Chunks(input_ids, weights, tuple(inserts))


def empty_chunk(tokenizer: CLIPTokenizer) -> Chunks:
    """A chunk without words, which fills up a phase that is shorter than another."""
    return _padded([_Chunk()], int(tokenizer.bos_token_id), int(tokenizer.eos_token_id))


def apply_weights(hidden: Tensor, weights: Tensor) -> Tensor:
    """Multiply hidden states by the tokens' weights and bring each chunk's mean back.

    z' = z * w, z'' = z' * mean(z) / mean(z'), as A1111's default ("Original") emphasis does. Where
    a mean is zero up to rounding, their ratio means nothing and is left out: a layer norm that was
    not trained gives such means.

    Args:
        hidden: (T, 77, C), or (T, S, 77, C): the phases of an edited prompt share their mean.
        weights: (T, 77) or (T, S, 77).

    Returns:
        As `hidden`; bit for bit `hidden` where all weights of a chunk are 1.
    """
    weighted = hidden * weights[..., None]
    within = tuple(range(1, hidden.ndim))
    before = hidden.mean(dim=within, keepdim=True)
    after = weighted.mean(dim=within, keepdim=True)
    rounding = _ROUNDING * hidden.abs().mean(dim=within, keepdim=True)
    meaningful = (before.abs() > rounding) & (after.abs() > rounding)
    # Dividing by 1 where the ratio isn't used keeps gradients finite: training goes through here.
    ones = torch.ones_like(after)
    ratio = torch.where(meaningful, before / torch.where(meaningful, after, ones), ones)
    plain = (weights == 1).flatten(1).all(dim=1).view(before.shape)
    return torch.where(plain, hidden, weighted * ratio)
