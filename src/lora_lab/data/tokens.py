"""Captions as token ids.

Captions longer than the text encoder's 75 tokens are cut into chunks of 75, each between the start
and the end token, as kohya does; up to three are read (``data.max_token_length``).

Shapes: L tokens a chunk with its ends (77), T chunks a caption.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from lora_lab.config import DataConfig
from lora_lab.prompts import parse_prompt, token_ids

CHUNK = 75


@dataclass(frozen=True)
class CaptionTokens:
    """A caption as the text encoder takes it."""

    input_ids: Tensor
    """int64, (L,), or (T, L) where more than 75 tokens or weights are read."""
    weights: Tensor | None
    """(T, L); None where captions have no weights."""


def caption_tokens(tokenizer: CLIPTokenizer, text: str, config: DataConfig) -> CaptionTokens:
    """Token ids of a caption, padded and cut to ``data.max_token_length``.

    Args:
        tokenizer: Of the base model.
        text: The caption.
        config: Length, and whether brackets are weights.
    """
    if config.max_token_length == CHUNK and not config.weighted_captions:
        return CaptionTokens(tokenize(tokenizer, text), None)
    room = config.max_token_length // CHUNK * (tokenizer.model_max_length - 2)
    pairs = token_weights(tokenizer, text, config.weighted_captions)[:room]
    pairs += [(int(tokenizer.pad_token_id), 1.0)] * (room - len(pairs))
    ids, weights = (torch.tensor(column) for column in zip(*pairs, strict=True))
    weights = _with_ends(weights, tokenizer, 1.0, 1.0)
    input_ids = _with_ends(ids, tokenizer, tokenizer.bos_token_id, tokenizer.eos_token_id)
    return CaptionTokens(input_ids, weights if config.weighted_captions else None)


def _with_ends(flat: Tensor, tokenizer: CLIPTokenizer, start: float, end: float) -> Tensor:
    """Cut into chunks and put a value before and behind each, (T, L)."""
    chunks = flat.view(-1, tokenizer.model_max_length - 2)
    ends = [torch.full((len(chunks), 1), value, dtype=flat.dtype) for value in (start, end)]
    return torch.cat([ends[0], chunks, ends[1]], dim=1)


def token_weights(tokenizer: CLIPTokenizer, text: str, weighted: bool) -> list[tuple[int, float]]:
    """All tokens of a caption, without ends, each with its weight."""
    pieces = [piece for piece in parse_prompt(text).pieces if piece] if weighted else [(text, 1.0)]
    return [(token, weight) for piece, weight in pieces for token in token_ids(tokenizer, piece)]


def tokenize(tokenizer: CLIPTokenizer, text: str) -> Tensor:
    """Token ids padded and cut to the model's length, int64, (L,)."""
    length = int(tokenizer.model_max_length)
    ids = [tokenizer.bos_token_id, *token_ids(tokenizer, text)[: length - 2]]
    ids.append(tokenizer.eos_token_id)
    return torch.tensor(ids + [tokenizer.pad_token_id] * (length - len(ids)))
