"""Batches in which everything random is paired between runs.

The order of an epoch depends on (seed, epoch); noise, timestep, crop, mirroring and caption of an
image depend on (seed, image, step, occurrence), where occurrence counts how often the image was met
before in the same step. Nothing depends on the batch size, on other images or on what was drawn
before: two runs that meet an image in the same step draw the same for it.

Shapes: B images a batch, C latent channels, h and w latent sides, L tokens a caption.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from lora_lab.config import DataConfig
from lora_lab.data.batch import Batch
from lora_lab.data.captions import shown_caption
from lora_lab.data.prepare import Item, View, sampled
from lora_lab.data.tokens import CaptionTokens, caption_tokens
from lora_lab.randomness import derive_seed, generator


@dataclass(frozen=True)
class Shown:
    """One showing of an image."""

    item: int
    """Index of the image."""
    occurrence: int
    """How often the same step has shown it before."""


@dataclass(frozen=True)
class Draw:
    """What one showing of an image trains on."""

    latents: Tensor
    """(C, h, w)"""
    noise: Tensor
    """(C, h, w)"""
    offset_draw: Tensor
    """(C, 1, 1)"""
    timestep: int
    tokens: CaptionTokens
    mask: Tensor | None
    """(1, h, w)"""


class PairedLoader:
    """Iterates over one epoch at a time and remembers where it is.

    Args:
        items: The training images.
        tokenizer: Of the base model.
        config: Batch size, mirroring, caption shuffle.
        seed: Of the run.
        timesteps: How many training timesteps the noise schedule has.
        accumulate: Batches whose gradients make one step.
    """

    def __init__(
        self,
        items: list[Item],
        tokenizer: CLIPTokenizer,
        config: DataConfig,
        seed: int,
        timesteps: int,
        accumulate: int,
    ) -> None:
        self.items = items
        self.tokenizer = tokenizer
        self.config = config
        self.seed = seed
        self.timesteps = timesteps
        self.accumulate = accumulate
        self.delivered = 0
        self.tokens: dict[str, CaptionTokens] = {}
        self.batches_per_epoch = len(self.plan(1))

    def __len__(self) -> int:
        """Batches an epoch."""
        return self.batches_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch; the last one may have fewer batches."""
        return math.ceil(self.batches_per_epoch / self.accumulate)

    def __iter__(self) -> Iterator[Batch]:
        """The batches that are left of the current epoch."""
        epoch, start = divmod(self.delivered, self.batches_per_epoch)
        plan = self.plan(epoch + 1)
        for index in range(start, self.batches_per_epoch):
            self.delivered += 1
            yield self.batch(epoch + 1, index, plan[index])

    def state_dict(self) -> dict[str, int]:
        """Where the loader is; Lightning stores it in the checkpoint."""
        return {"delivered": self.delivered}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.delivered = state["delivered"]

    def plan(self, epoch: int) -> list[list[Shown]]:
        """The batches of an epoch; none mixes buckets."""
        by_bucket: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for index, item in enumerate(self.items):
            for repeat in range(item.example.repeats):
                rank = derive_seed(self.seed, "order", epoch, item.example.key, repeat)
                by_bucket.setdefault(item.bucket, []).append((rank, index))
        batches = []
        for bucket in sorted(by_bucket):
            order = sorted(by_bucket[bucket])
            for start in range(0, len(order), self.config.batch_size):
                batches.append(order[start : start + self.config.batch_size])
        batches.sort()  # by their first image's rank, which mixes the buckets' batches
        return self._with_occurrences([[index for _, index in batch] for batch in batches])

    def _with_occurrences(self, batches: list[list[int]]) -> list[list[Shown]]:
        plan = []
        met: Counter[int] = Counter()
        for position, batch in enumerate(batches):
            if position % self.accumulate == 0:
                met.clear()
            shown = []
            for index in batch:
                shown.append(Shown(index, met[index]))
                met[index] += 1
            plan.append(shown)
        return plan

    def batch(self, epoch: int, index: int, shown: list[Shown]) -> Batch:
        """One batch with all that is random in it.

        Args:
            epoch: From 1.
            index: Of the batch in the epoch, from 0.
            shown: The images of the batch.
        """
        step = (epoch - 1) * self.steps_per_epoch + index // self.accumulate + 1
        drawn = [self._draw(self.items[one.item], step, epoch, one.occurrence) for one in shown]
        last = index == self.batches_per_epoch - 1
        return Batch(
            latents=torch.stack([draw.latents for draw in drawn]),
            noise=torch.stack([draw.noise for draw in drawn]),
            offset_draw=torch.stack([draw.offset_draw for draw in drawn]),
            timesteps=torch.tensor([draw.timestep for draw in drawn]),
            input_ids=torch.stack([draw.tokens.input_ids for draw in drawn]),
            token_weights=_stacked([draw.tokens.weights for draw in drawn]),
            loss_weights=torch.tensor([self._weight(one) for one in shown]),
            masks=_stacked([draw.mask for draw in drawn]),
            keys=[self.items[one.item].example.key for one in shown],
            step=step,
            epoch=epoch,
            ends_step=last or (index + 1) % self.accumulate == 0,
            ends_epoch=last,
        )

    def _weight(self, shown: Shown) -> float:
        is_reg = self.items[shown.item].example.is_reg
        return self.config.prior_loss_weight if is_reg else 1.0

    def _draw(self, item: Item, step: int, epoch: int, occurrence: int) -> Draw:
        """All that is random in one showing of an image."""
        key = item.example.key
        names = (key, step, occurrence)
        view = self._view(item, *names)
        latents = view.posterior.mean
        if self.config.latents == "sample":
            latents = sampled(view.posterior, generator(self.seed, "posterior", *names))
        text = item.example.caption.text
        text = shown_caption(text, self.config, self.seed, key, step, epoch, occurrence)
        noise = torch.randn(latents.shape, generator=generator(self.seed, "noise", *names))
        offset = torch.randn(
            (latents.shape[0], 1, 1), generator=generator(self.seed, "noise_offset", *names)
        )
        timestep = derive_seed(self.seed, "timestep", *names) % self.timesteps
        return Draw(latents, noise, offset, timestep, self._tokenize(text), view.mask)

    def _view(self, item: Item, key: str, step: int, occurrence: int) -> View:
        views = item.views
        if item.mirrored and derive_seed(self.seed, "flip", key, step, occurrence) % 2:
            views = item.mirrored
        return views[derive_seed(self.seed, "variant", key, step, occurrence) % len(views)]

    def _tokenize(self, text: str) -> CaptionTokens:
        if text not in self.tokens:
            self.tokens[text] = caption_tokens(self.tokenizer, text, self.config)
        return self.tokens[text]


def _stacked(parts: list[Tensor | None]) -> Tensor | None:
    """The parts that are there in one tensor, ones in place of the others; None if none is."""
    shape = next((part.shape for part in parts if part is not None), None)
    if shape is None:
        return None
    return torch.stack([torch.ones(shape) if part is None else part for part in parts])
