"""What the held-out loss is measured on: images at fixed timesteps with fixed noise.

Held-out images, and as many training images: the gap between the two is overfitting. Noise depends
on image and timestep alone, not on the run's seed, so any two runs on the same data measure the
same thing. An image costs a quarter of what a training step on it does, so all of them are measured
at all timesteps only where verdicts are asked for:

- at the last save, and where a run pauses for `study.early_end`, each held-out image at each
  timestep;
- at the other saves two held-out images at each timestep, always the same ones;
- before the first step, and with the last save, each image, held out or trained on, at one
  timestep, each timestep with as many images.

Shapes: N images, C latent channels, h and w latent sides, L tokens, T chunks of a caption,
U pairs of an image and a timestep.
"""

from collections.abc import Iterator, Sequence
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
IMAGES_BETWEEN = 2
"""Held-out images at each timestep at the saves where no verdict is asked for."""
HELD_OUT, TRAINING = "held_out", "training"

Unit = tuple[str, int]
"""Image and timestep."""


@dataclass(frozen=True)
class Probe:
    """Images of one size, each at some timesteps."""

    part: str
    """``held_out`` or ``training``."""
    keys: list[str]
    latents: Tensor
    """(N, C, h, w)"""
    input_ids: Tensor
    """(N, L), or (N, T, L) where captions have chunks or weights."""
    token_weights: Tensor | None
    """(N, T, L)"""
    rows: Tensor
    """Which of the images, (U,), int64."""
    timesteps: Tensor
    """(U,), int64."""
    noise: Tensor
    """(U, C, h, w)"""

    @property
    def units(self) -> list[Unit]:
        """Image and timestep of each loss."""
        pairs = zip(self.rows.tolist(), self.timesteps.tolist(), strict=True)
        return [(self.keys[row], timestep) for row, timestep in pairs]

    def passes(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Rows, timesteps and noise of each forward pass of the UNet, of like sizes."""
        count = -(-len(self.rows) // _images_a_pass(self.latents[0]))
        parts = (tensor.chunk(count) for tensor in (self.rows, self.timesteps, self.noise))
        yield from zip(*parts, strict=True)


@dataclass(frozen=True)
class HeldOutProbes:
    """What is measured when; all empty without held-out images."""

    bare: list[Probe]
    """Before the first step."""
    between: list[Probe]
    """At each save."""
    rest: list[Probe]
    """Also at the last save, and where a run pauses."""

    @property
    def last(self) -> list[Probe]:
        """All that is measured at the last save; holds what `bare` does.

        What every save measures is measured by passes of its own, so that its last digits are the
        same whether or not the rest is.
        """
        return [*self.between, *self.rest]


def make_probes(
    held_out: list[Item], training: list[Item], tokenizer: CLIPTokenizer, config: DataConfig
) -> HeldOutProbes:
    """The probes of a run.

    Args:
        held_out: Images that are not trained on.
        training: The training images; as many of them are measured.
        tokenizer: Of the base model.
        config: How captions become tokens.
    """
    chosen = sorted(training, key=lambda item: derive_seed(NOISE_SEED, item.example.key))
    chosen = chosen[: len(held_out)]
    held_out_keys = [item.example.key for item in held_out]
    once = one_timestep_each(held_out_keys)
    between = once[: IMAGES_BETWEEN * len(TIMESTEPS)]
    every = [(key, timestep) for timestep in TIMESTEPS for key in held_out_keys]
    rest = [unit for unit in every if unit not in between]
    of_training = one_timestep_each([item.example.key for item in chosen])

    def probes(part: str, items: list[Item], units: list[Unit]) -> list[Probe]:
        return _by_size(part, items, units, tokenizer, config)

    training_probes = probes(TRAINING, chosen, of_training)
    return HeldOutProbes(
        bare=[*probes(HELD_OUT, held_out, once), *training_probes],
        between=probes(HELD_OUT, held_out, between),
        rest=[*probes(HELD_OUT, held_out, rest), *training_probes],
    )


def one_timestep_each(keys: Sequence[str]) -> list[Unit]:
    """One timestep for each image, and as many images for each timestep.

    Where there are fewer images than timesteps, an image has several, so that none is left out.
    Which image has which depends on the images alone.
    """
    order = sorted(keys, key=lambda key: derive_seed(NOISE_SEED, "timestep", key))
    count = max(len(order), len(TIMESTEPS)) if order else 0
    return [(order[n % len(order)], TIMESTEPS[n % len(TIMESTEPS)]) for n in range(count)]


def _by_size(
    part: str,
    items: list[Item],
    units: list[Unit],
    tokenizer: CLIPTokenizer,
    config: DataConfig,
) -> list[Probe]:
    """The images that are measured, grouped by size, at most ``LATENT_PIXELS`` a group."""
    timesteps: dict[str, list[int]] = {}
    for key, timestep in units:
        timesteps.setdefault(key, []).append(timestep)
    by_bucket: dict[tuple[int, int], list[Item]] = {}
    for item in items:
        if item.example.key in timesteps:
            by_bucket.setdefault(item.bucket, []).append(item)
    probes = []
    for bucket in sorted(by_bucket):
        group = by_bucket[bucket]
        count = -(-len(group) // _images_a_pass(group[0].latents))
        size = -(-len(group) // count)
        probes += [
            _probe(part, group[start : start + size], timesteps, tokenizer, config)
            for start in range(0, len(group), size)
        ]
    return probes


def _images_a_pass(latents: Tensor) -> int:
    """How many images of the size of these latents, (C, h, w), are measured at once."""
    return max(1, LATENT_PIXELS // latents[0].numel())


def _probe(
    part: str,
    items: list[Item],
    timesteps: dict[str, list[int]],
    tokenizer: CLIPTokenizer,
    config: DataConfig,
) -> Probe:
    keys = [item.example.key for item in items]
    # By timestep, so that a pass has different images.
    pairs = sorted((timestep, row) for row, key in enumerate(keys) for timestep in timesteps[key])
    latents = torch.stack([item.latents for item in items])
    noise = [
        torch.randn(
            latents.shape[1:], generator=generator(NOISE_SEED, "held_out", keys[row], timestep)
        )
        for timestep, row in pairs
    ]
    tokens = [caption_tokens(tokenizer, item.example.caption.text, config) for item in items]
    weights = [one.weights for one in tokens if one.weights is not None]
    return Probe(
        part=part,
        keys=keys,
        latents=latents,
        input_ids=torch.stack([one.input_ids for one in tokens]),
        token_weights=torch.stack(weights) if weights else None,
        rows=torch.tensor([row for _, row in pairs]),
        timesteps=torch.tensor([timestep for timestep, _ in pairs]),
        noise=torch.stack(noise),
    )
