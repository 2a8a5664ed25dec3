"""Batches in which everything random is paired between runs.

The order of an epoch depends on (seed, epoch); noise, timestep, crop, mirroring and caption of an
image depend on (seed, image, step, occurrence), where occurrence counts how often the image was met
before in the same step. Nothing depends on the batch size, on other images or on earlier random
numbers: two runs that meet an image in the same step give it the same noise. Stratified timesteps
also depend on which images share the step: two runs with the same images in a step, in whatever
batches, give them the same timesteps.

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
from lora_lab.data.captions import training_caption
from lora_lab.data.noise_inputs import NoiseInputs, NoiseSeed, check_timesteps, sample_noise
from lora_lab.data.prepare import Item, View, sampled
from lora_lab.data.tokens import CaptionTokens, caption_tokens
from lora_lab.randomness import derive_seed, generator


@dataclass(frozen=True)
class PlannedSample:
    """An image in the plan of a step: it occurs as often as its repeats say."""

    item: int
    """Index of the image."""
    occurrence: int
    """How often it occurred earlier in the same step."""
    stratum: int
    """Its place among the images of the step, in a random order of each step's own."""
    step_images: int
    """Images in the step."""


@dataclass(frozen=True)
class TrainingSample:
    """What the network trains on: one image with all that is random about it."""

    latents: Tensor
    """(C, h, w)"""
    noise: NoiseInputs
    tokens: CaptionTokens
    mask: Tensor | None
    """(1, h, w)"""


class PairedLoader:
    """Iterates over one epoch at a time and remembers where it is.

    Args:
        items: The training images.
        tokenizer: Of the base model.
        config: Batch size, mirroring, caption shuffle.
        objective: Which noise and which timesteps.
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

    def _share_of(self, epoch: int, index: int, planned: list[PlannedSample]) -> Batch:
        """This rank's part of a batch, with weights that make the ranks' mean the batch's mean.

        A rank for which nothing is left (a bucket's last batch) computes an image at weight 0.
        """
        if self.ranks == 1:
            return self.batch(epoch, index, planned)
        mine = planned[self.rank :: self.ranks]
        batch = self.batch(epoch, index, mine or planned[:1])
        # A batch's loss is divided by its own images, or by those of all ranks' step (module.py).
        divided_by = len(mine) / len(planned) if self.accumulate == 1 else float(bool(mine))
        batch["loss_weights"] = batch["loss_weights"] * (divided_by * self.ranks)
        return batch

    def state_dict(self) -> dict[str, int]:
        """Where the loader is; Lightning stores it in the checkpoint."""
        return {"delivered": self.delivered}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.delivered = state["delivered"]

    def plan(self, epoch: int) -> list[list[PlannedSample]]:
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
        plan: list[list[PlannedSample]] = []
        for number in range(steps):
            start = number * self.accumulate
            plan += self._step(indices[start : start + self.accumulate], number + 1, epoch, steps)
        return plan

    def _step(
        self, batches: list[list[int]], number: int, epoch: int, steps_per_epoch: int
    ) -> list[list[PlannedSample]]:
        """The samples of one step, batch by batch."""
        step = (epoch - 1) * steps_per_epoch + number
        met: Counter[int] = Counter()
        occurrences = []
        for index in (index for batch in batches for index in batch):
            occurrences.append((index, met[index]))
            met[index] += 1
        keys = [(self.items[index].example.key, occurrence) for index, occurrence in occurrences]
        order = sorted(keys, key=lambda key: derive_seed(self.seed, "stratum", *key, step))
        places = {key: place for place, key in enumerate(order)}
        planned = [
            PlannedSample(*occurrence, places[key], len(keys))
            for occurrence, key in zip(occurrences, keys, strict=True)
        ]
        following = iter(planned)
        return [[next(following) for _ in batch] for batch in batches]

    def batch(self, epoch: int, index: int, planned: list[PlannedSample]) -> Batch:
        """One batch with all that is random in it.

        Args:
            epoch: From 1.
            index: Of the batch in the epoch, from 0.
            planned: The images of the batch.
        """
        step = (epoch - 1) * self.steps_per_epoch + index // self.accumulate + 1
        samples = [self._sample(self.items[one.item], step, epoch, one) for one in planned]
        noises = [one.noise for one in samples]
        last = index == self.batches_per_epoch - 1
        return Batch(
            latents=torch.stack([one.latents for one in samples]),
            noise=torch.stack([one.noise for one in noises]),
            offset_noise=torch.stack([one.offset for one in noises]),
            offset_strength=torch.tensor([one.strength for one in noises]),
            noise_levels=_stacked([one.levels for one in noises]),
            perturbation=_stacked([one.perturbation for one in noises]),
            timesteps=torch.tensor([one.timestep for one in noises]),
            input_ids=torch.stack([one.tokens.input_ids for one in samples]),
            token_weights=_stacked([one.tokens.weights for one in samples]),
            loss_weights=torch.tensor([self._weight(one) for one in planned]),
            masks=_stacked([one.mask for one in samples]),
            keys=[self.items[one.item].example.key for one in planned],
            step=step,
            epoch=epoch,
            step_images=planned[0].step_images,
            ends_step=last or (index + 1) % self.accumulate == 0,
            ends_epoch=last,
        )

    def _weight(self, planned: PlannedSample) -> float:
        is_reg = self.items[planned.item].example.is_reg
        return self.config.prior_loss_weight if is_reg else 1.0

    def _sample(self, item: Item, step: int, epoch: int, planned: PlannedSample) -> TrainingSample:
        """An image with all that is random about it."""
        key, occurrence = item.example.key, planned.occurrence
        names = (key, step, occurrence)
        view = self._view(item, *names)
        latents = view.posterior.mean
        if self.config.latents == "sample":
            latents = sampled(view.posterior, generator(self.seed, "posterior", *names))
        text = item.example.caption.text
        text = training_caption(text, self.config, self.seed, key, step, epoch, occurrence)
        seed = NoiseSeed(self.seed, key, step, occurrence, planned.stratum, planned.step_images)
        noise = sample_noise(seed, latents.shape, self.objective, self.timesteps)
        return TrainingSample(latents, noise, self._tokenize(text), view.mask)

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
