"""Batches in which everything random is paired between runs.

The order of an epoch depends on (seed, epoch); noise, timestep, mirroring and caption shuffle of an
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
from lora_lab.data.captions import shuffle_caption
from lora_lab.data.prepare import Item
from lora_lab.data.tokens import tokenize
from lora_lab.randomness import derive_seed, generator


@dataclass(frozen=True)
class Shown:
    """One showing of an image."""

    item: int
    """Index of the image."""
    occurrence: int
    """How often the same step has shown it before."""


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
        self.tokens: dict[str, Tensor] = {}
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
        drawn = [self._draw(self.items[one.item], step, one.occurrence) for one in shown]
        last = index == self.batches_per_epoch - 1
        return Batch(
            latents=torch.stack([draw[0] for draw in drawn]),
            noise=torch.stack([draw[1] for draw in drawn]),
            offset_draw=torch.stack([draw[2] for draw in drawn]),
            timesteps=torch.tensor([draw[3] for draw in drawn]),
            input_ids=torch.stack([draw[4] for draw in drawn]),
            loss_weights=torch.ones(len(shown)),
            masks=None,
            keys=[self.items[one.item].example.key for one in shown],
            step=step,
            epoch=epoch,
            ends_step=last or (index + 1) % self.accumulate == 0,
            ends_epoch=last,
        )

    def _draw(
        self, item: Item, step: int, occurrence: int
    ) -> tuple[Tensor, Tensor, Tensor, int, Tensor]:
        """Latents, noise, offset draw, timestep and tokens of one showing of an image."""
        key = item.example.key
        latents = item.latents
        if item.mirrored is not None and derive_seed(self.seed, "flip", key, step, occurrence) % 2:
            latents = item.mirrored
        text = item.example.caption.text
        if self.config.shuffle_caption:
            text = shuffle_caption(text, self.config.keep_tokens, self.seed, key, step, occurrence)
        noise = torch.randn(
            latents.shape, generator=generator(self.seed, "noise", key, step, occurrence)
        )
        offset = torch.randn(
            (latents.shape[0], 1, 1),
            generator=generator(self.seed, "noise_offset", key, step, occurrence),
        )
        timestep = derive_seed(self.seed, "timestep", key, step, occurrence) % self.timesteps
        return latents, noise, offset, timestep, self._tokenize(text)

    def _tokenize(self, text: str) -> Tensor:
        """Token ids of a caption, cut at the model's length, (L,)."""
        if text not in self.tokens or self.config.shuffle_caption:
            self.tokens[text] = tokenize(self.tokenizer, text)
        return self.tokens[text]
