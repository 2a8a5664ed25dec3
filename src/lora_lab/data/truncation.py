"""Captions that are longer than what is read of them."""

import logging

from transformers.models.clip.tokenization_clip import CLIPTokenizer

from lora_lab.config import DataConfig
from lora_lab.data.examples import Example, Examples
from lora_lab.data.tokens import token_weights

log = logging.getLogger(__name__)

NAMED = 3
"""How many captions are named in the log."""


def token_counts(
    examples: list[Example], tokenizer: CLIPTokenizer, config: DataConfig
) -> list[int]:
    """How many tokens each caption has, without the start and end tokens."""
    return [
        len(token_weights(tokenizer, example.caption.text, config.weighted_captions))
        for example in examples
    ]


def tell_truncated(examples: Examples, tokenizer: CLIPTokenizer, config: DataConfig) -> None:
    """Warn of captions longer than ``data.max_token_length``."""
    every = examples.train + examples.reg + examples.held_out
    limit = config.max_token_length
    counts = token_counts(every, tokenizer, config)
    long = [
        f"{example.key} ({count} tokens)"
        for example, count in zip(every, counts, strict=True)
        if count > limit
    ]
    if long:
        more = f"; data.max_token_length={limit + 75} reads more" if limit < 225 else ""
        log.warning(
            "%d of %d captions are longer than %d tokens, the rest is not read: %s%s%s",
            *(len(long), len(every), limit, ", ".join(long[:NAMED])),
            *(", ..." if len(long) > NAMED else "", more),
        )
