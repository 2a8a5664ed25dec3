"""What the held-out loss is measured on: images at fixed timesteps with fixed noise.

Held-out images, and as many training images: the gap between the two is overfitting. Noise depends
on image and timestep alone, not on the run's seed, so any two runs on the same data measure the
same thing.

Shapes: N images, C latent channels, h and w latent sides, L tokens, T chunks of a caption.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from lora_lab.config import DataConfig
from lora_lab.data.prepare import Item
from lora_lab.data.tokens import caption_tokens
from lora_lab.randomness import derive_seed, generator

TIMESTEPS = (100, 300, 500, 700, 900)
NOISE_SEED = 0
LATENT_PIXELS = 4096
"""Latent pixels in a forward pass: 16 images of pocket, one of SD 1.5 at 512 px."""
HELD_OUT, TRAINING = "held_out", "training"


@dataclass(frozen=True)
class Probe:
    """Images of one size that are measured in one forward pass a timestep."""

    part: str
    """``held_out`` or ``training``."""
    keys: list[str]
    latents: Tensor
    """(N, C, h, w)"""
    input_ids: Tensor
    """(N, L), or (N, T, L) where captions have chunks or weights."""
    token_weights: Tensor | None
    """(N, T, L)"""
    noise: dict[int, Tensor]
    """Timestep -> (N, C, h, w)."""


def make_probes(
    held_out: list[Item], training: list[Item], tokenizer: CLIPTokenizer, config: DataConfig
) -> list[Probe]:
    """The probes of a run; none without held-out images.

    Args:
        held_out: Images that are not trained on.
        training: The training images; as many of them are measured.
        tokenizer: Of the base model.
        config: How captions become tokens.
    """
    chosen = sorted(training, key=lambda item: derive_seed(NOISE_SEED, item.example.key))
    probes = _by_size(HELD_OUT, held_out, tokenizer, config)
    return probes + _by_size(TRAINING, chosen[: len(held_out)], tokenizer, config)


def _by_size(
    part: str, items: list[Item], tokenizer: CLIPTokenizer, config: DataConfig
) -> list[Probe]:
    """Images grouped by size, at most ``LATENT_PIXELS`` a group."""
    by_bucket: dict[tuple[int, int], list[Item]] = {}
    for item in items:
        by_bucket.setdefault(item.bucket, []).append(item)
    probes = []
    for bucket in sorted(by_bucket):
        group = by_bucket[bucket]
        size = max(1, LATENT_PIXELS // group[0].latents[0].numel())
        probes += [
            _probe(part, group[start : start + size], tokenizer, config)
            for start in range(0, len(group), size)
        ]
    return probes


def _probe(part: str, items: list[Item], tokenizer: CLIPTokenizer, config: DataConfig) -> Probe:
    latents = torch.stack([item.latents for item in items])
    keys = [item.example.key for item in items]
    noise = {
        timestep: torch.stack(
            [
                torch.randn(
                    latents.shape[1:], generator=generator(NOISE_SEED, "held_out", key, timestep)
                )
                for key in keys
            ]
        )
        for timestep in TIMESTEPS
    }
    tokens = [caption_tokens(tokenizer, item.example.caption.text, config) for item in items]
    input_ids = torch.stack([one.input_ids for one in tokens])
    weights = [one.weights for one in tokens if one.weights is not None]
    return Probe(part, keys, latents, input_ids, torch.stack(weights) if weights else None, noise)
