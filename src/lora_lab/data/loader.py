"""Batches in which everything random is paired between runs.

The order of an epoch depends on (seed, epoch); noise, timestep, crop, mirroring and caption of an
image depend on (seed, image, step, occurrence), where occurrence counts how often the image was met
before in the same step. Nothing depends on the batch size, on other images or on what was drawn
before: two runs that meet an image in the same step draw the same for it. Stratified timesteps
depend on which images share the step, too: two runs with the same images in a step, in whatever
batches, draw the same for them.

Shapes: B images a batch, C latent channels, h and w latent sides, L tokens a caption.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from lora_lab.config import DataConfig, ObjectiveConfig
from lora_lab.data.batch import Batch
from lora_lab.data.captions import shown_caption
from lora_lab.data.draws import Draws, Showing, check_timesteps, draw
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
    stratum: int
    """Its place among the images of the step, in an order drawn anew for each step."""
    step_images: int
    """Images in the step."""


@dataclass(frozen=True)
class Draw:
    """What one showing of an image trains on."""

    latents: Tensor
    """(C, h, w)"""
    draws: Draws
    tokens: CaptionTokens
    mask: Tensor | None
    """(1, h, w)"""


class PairedLoader:
    """Iterates over one epoch at a time and remembers where it is.

    Args:
        items: The training images.
        tokenizer: Of the base model.
        config: Batch size, mirroring, caption shuffle.
        objective: What is drawn for the noise, and how timesteps are.
        seed: Of the run.
        timesteps: How many training timesteps the noise schedule has.
        accumulate: Batches whose gradients make one step.
        share: (rank, ranks): which part of each batch of ``ranks * data.batch_size`` images is
            delivered when several devices train together.
    """

    def __init__(
        self,
        items: list[Item],
        tokenizer: CLIPTokenizer,
        config: DataConfig,
        objective: ObjectiveConfig,
        seed: int,
        timesteps: int,
        accumulate: int,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.rank, self.ranks = share
        self.items = items
        self.tokenizer = tokenizer
        self.config = config
        self.objective = objective
        check_timesteps(objective, timesteps)
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
            yield self._share_of(epoch + 1, index, plan[index])

    def _share_of(self, epoch: int, index: int, shown: list[Shown]) -> Batch:
        """This rank's part of a batch, with weights that make the ranks' mean the batch's mean.

        A rank for which nothing is left (a bucket's last batch) computes an image at weight 0.
        """
        if self.ranks == 1:
            return self.batch(epoch, index, shown)
        mine = shown[self.rank :: self.ranks]
        batch = self.batch(epoch, index, mine or shown[:1])
        # A batch's loss is divided by its own images, or by those of all ranks' step (module.py).
        divided_by = len(mine) / len(shown) if self.accumulate == 1 else float(bool(mine))
        batch["loss_weights"] = batch["loss_weights"] * (divided_by * self.ranks)
        return batch

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
            size = self.config.batch_size * self.ranks
            for start in range(0, len(order), size):
                batches.append(order[start : start + size])
        batches.sort()  # by their first image's rank, which mixes the buckets' batches
        indices = [[index for _, index in batch] for batch in batches]
        steps = math.ceil(len(indices) / self.accumulate)
        plan: list[list[Shown]] = []
        for number in range(steps):
            start = number * self.accumulate
            plan += self._step(indices[start : start + self.accumulate], number + 1, epoch, steps)
        return plan

    def _step(
        self, batches: list[list[int]], number: int, epoch: int, steps_per_epoch: int
    ) -> list[list[Shown]]:
        """The showings of one step, batch by batch."""
        step = (epoch - 1) * steps_per_epoch + number
        met: Counter[int] = Counter()
        showings = []
        for index in (index for batch in batches for index in batch):
            showings.append((index, met[index]))
            met[index] += 1
        keys = [(self.items[index].example.key, occurrence) for index, occurrence in showings]
        order = sorted(keys, key=lambda key: derive_seed(self.seed, "stratum", *key, step))
        places = {key: place for place, key in enumerate(order)}
        shown = [
            Shown(*showing, places[key], len(keys))
            for showing, key in zip(showings, keys, strict=True)
        ]
        following = iter(shown)
        return [[next(following) for _ in batch] for batch in batches]

    def batch(self, epoch: int, index: int, shown: list[Shown]) -> Batch:
        """One batch with all that is random in it.

        Args:
            epoch: From 1.
            index: Of the batch in the epoch, from 0.
            shown: The images of the batch.
        """
        step = (epoch - 1) * self.steps_per_epoch + index // self.accumulate + 1
        drawn = [self._draw(self.items[one.item], step, epoch, one) for one in shown]
        draws = [one.draws for one in drawn]
        last = index == self.batches_per_epoch - 1
        return Batch(
            latents=torch.stack([one.latents for one in drawn]),
            noise=torch.stack([one.noise for one in draws]),
            offset_draw=torch.stack([one.offset for one in draws]),
            offset_strength=torch.tensor([one.strength for one in draws]),
            noise_levels=_stacked([one.levels for one in draws]),
            perturbation=_stacked([one.perturbation for one in draws]),
            timesteps=torch.tensor([one.timestep for one in draws]),
            input_ids=torch.stack([one.tokens.input_ids for one in drawn]),
            token_weights=_stacked([one.tokens.weights for one in drawn]),
            loss_weights=torch.tensor([self._weight(one) for one in shown]),
            masks=_stacked([one.mask for one in drawn]),
            keys=[self.items[one.item].example.key for one in shown],
            step=step,
            epoch=epoch,
            step_images=shown[0].step_images,
            ends_step=last or (index + 1) % self.accumulate == 0,
            ends_epoch=last,
        )

    def _weight(self, shown: Shown) -> float:
        is_reg = self.items[shown.item].example.is_reg
        return self.config.prior_loss_weight if is_reg else 1.0

    def _draw(self, item: Item, step: int, epoch: int, shown: Shown) -> Draw:
        """All that is random in one showing of an image."""
        key, occurrence = item.example.key, shown.occurrence
        names = (key, step, occurrence)
        view = self._view(item, *names)
        latents = view.posterior.mean
        if self.config.latents == "sample":
            latents = sampled(view.posterior, generator(self.seed, "posterior", *names))
        text = item.example.caption.text
        text = shown_caption(text, self.config, self.seed, key, step, epoch, occurrence)
        showing = Showing(self.seed, key, step, occurrence, shown.stratum, shown.step_images)
        draws = draw(showing, latents.shape, self.objective, self.timesteps)
        return Draw(latents, draws, self._tokenize(text), view.mask)

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
