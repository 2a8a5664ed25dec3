"""Pocket's tokenizer: CLIP's byte-pair encoding with the part of its vocabulary that pocket needs.

The merges are CLIP's own (OpenAI, MIT; shipped by open_clip), in CLIP's order: the first
``FIRST_MERGES`` and all that the words of the captions need, so that CLIP's tokens are theirs.
"""

import gzip
from itertools import pairwise
from pathlib import Path

from transformers import CLIPTokenizer

FIRST_MERGES = 1024
CONTEXT = 77
"""Tokens of a prompt, start and end included, as in Stable Diffusion 1.5."""


def byte_symbols() -> list[str]:
    """The 256 printable stand-ins of byte-level BPE, in CLIP's order (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(rest))]


def read_clip_merges(path: Path) -> list[tuple[str, str]]:
    """The 48,894 merges of CLIP's ``bpe_simple_vocab_16e6.txt.gz``."""
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : 49152 - 256 - 2 + 1]
    return [(left, right) for left, right in (line.split() for line in lines)]


def merges_of_word(word: str, ranks: dict[tuple[str, str], int]) -> set[int]:
    """Ranks of the merges that turn ``word`` (ASCII) into its tokens."""
    parts, used = [*word[:-1], word[-1] + "</w>"], set()
    while len(parts) > 1:
        pairs = [(ranks.get(pair, len(ranks)), i) for i, pair in enumerate(pairwise(parts))]
        rank, i = min(pairs)
        if rank == len(ranks):
            break
        used.add(rank)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return used


def build_tokenizer(merges_file: Path, words: set[str]) -> CLIPTokenizer:
    """CLIP's tokenizer reduced to ``FIRST_MERGES`` merges and those of ``words``."""
    merges = read_clip_merges(merges_file)
    ranks = {pair: i for i, pair in enumerate(merges)}
    used = set(range(FIRST_MERGES)).union(*(merges_of_word(w, ranks) for w in sorted(words)))
    kept = [merges[i] for i in sorted(used)]
    symbols = byte_symbols()
    tokens = [*symbols, *(s + "</w>" for s in symbols), *(a + b for a, b in kept)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=kept, model_max_length=CONTEXT)
    if len(tokenizer) != len(vocab):
        raise ValueError(f"tokenizer has {len(tokenizer)} tokens, expected {len(vocab)}")
    return tokenizer
