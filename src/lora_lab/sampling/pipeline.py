"""Draws images of any number of LoRA files on one base, which stays in memory.

Images of several LoRAs share a batch: each has the weights of its own LoRA in the layers that a
LoRA changes (image_layers.py), so every kind of LoRA, any weight and LoRAs that prompts name go
the same way. The text encoder gets one LoRA after the other, for the prompts of its images.
On a CPU small images are drawn in several batches at once (batch_threads.py).
"""

import logging
import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path

import torch
from PIL import Image

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.config import SamplingConfig
from lora_lab.errors import LabError, first_line
from lora_lab.images.png_info import ImageRecipe
from lora_lab.lora_file.merge import LoRAMerger, merged_weights, named_layers
from lora_lab.prompts import LoRATag
from lora_lab.sampling.batch_threads import BatchThreads, batch_threads, thread_count
from lora_lab.sampling.devices import choose_device
from lora_lab.sampling.generate import (
    Drawn,
    DrawSettings,
    EncodedCache,
    EncodedRequest,
    ImageRequest,
    batches,
    check_settings,
    draw_batch,
    encode_request,
)
from lora_lab.sampling.image_files import ImageWriter, claim
from lora_lab.sampling.image_layers import ImageLayers, LayerWeights
from lora_lab.sampling.lora_files import LoRAFile, LoRAFileCache
from lora_lab.sampling.prompt_names import Change, PromptNames

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageTask:
    """An image to be drawn."""

    path: Path
    """Its plain name."""
    request: ImageRequest
    settings: DrawSettings
    lora: Path | None
    """None: the base alone."""
    weight: float
    plain_name: bool
    """Whether it is one of the images that a run is known by; others have a digest in the name."""


@dataclass(frozen=True)
class ImageResult:
    """An image's file, or why there is none."""

    path: Path | None
    problem: str = ""
    drawn: bool = False
    """Whether it was drawn now, not found."""
    expected: bool = False
    """Whether there is none because its run has no such LoRA, which is no error of the drawing."""


LoRAsUsed = tuple[Path | None, float, tuple[LoRATag, ...]]
"""LoRA, its weight, and the LoRAs that a prompt names: all that changes the base for an image."""


@dataclass(frozen=True)
class PlannedImage:
    """An image with its place on disk."""

    number: int
    """Of its task."""
    task: ImageTask
    recipe: ImageRecipe
    path: Path
    there: bool
    """Whether it is drawn already."""


@dataclass(frozen=True)
class ReadyImage:
    """An image with all that drawing takes."""

    planned: PlannedImage
    asked: EncodedRequest
    weights: LayerWeights
    """Of the UNet's layers that its LoRAs change; the same object for the same LoRAs."""


@dataclass(frozen=True)
class DrawingCall:
    """What all images of one call of `LoRAPipeline.draw` share."""

    tasks: Sequence[ImageTask]
    outcomes: list[ImageResult]
    """One a task."""
    writer: ImageWriter


class LoRAPipeline:
    """One base checkpoint, and LoRAs that come and go.

    Args:
        base: Without LoRA layers. Its UNet and VAE go to the device that the config names, and
            their convolutions to the memory format that CPUs and GPUs compute fastest in.
        config: How to draw.

    Raises:
        LabError: A textual inversion can't be read, or there is no such device.
    """

    def __init__(self, base: BaseModel, config: SamplingConfig) -> None:
        self.base = base
        device = choose_device(config.device)
        for part in (base.unet, base.vae):
            part.to(device, memory_format=torch.channels_last)
        self.names = PromptNames(config)
        self._width = base.text_encoder.config.hidden_size
        self.embeddings = self.names.embeddings(self._width)
        self._loras_at_once = config.loras_at_once
        self._layers = named_layers(base)
        self._merger = LoRAMerger(base)
        self._unet, self._vae = ImageLayers(base.unet), ImageLayers(base.vae)
        self._files = LoRAFileCache(config.loras_at_once)
        self._encoded: dict[Hashable, EncodedCache] = {}

    def draw(self, tasks: Sequence[ImageTask]) -> list[ImageResult]:
        """Draw what is not there yet, as many LoRAs at once as the config says.

        Returns:
            One result a task. A LoRA that can't be read or does not fit, and an image with NaN,
            come back as problems.

        Raises:
            LabError: An image can't be written.
        """
        self._files.forget()  # a file may be another one by now
        outcomes = [ImageResult(None, "not drawn") for _ in tasks]
        alike: dict[int, dict[LoRAsUsed, list[int]]] = {}
        for number, task in enumerate(tasks):
            try:
                tags = self.names.loras(task.request.prompt)
            except LabError as error:
                outcomes[number] = ImageResult(None, first_line(error))
                continue
            size = task.settings.width, task.settings.height
            of_count = alike.setdefault(thread_count(self.base.unet.device, *size), {})
            of_count.setdefault((task.lora, task.weight, tags), []).append(number)
        with ImageWriter() as writer:
            call = DrawingCall(tasks, outcomes, writer)
            for count, found in alike.items():
                groups = list(found.items())
                with batch_threads(count) as threads:
                    for first in range(0, len(groups), self._loras_at_once):
                        together = dict(groups[first : first + self._loras_at_once])
                        self._draw_together(together, call, threads)
                        threads.end_group()
        return outcomes

    def _draw_together(
        self, together: dict[LoRAsUsed, list[int]], call: DrawingCall, threads: BatchThreads
    ) -> None:
        """Draw images of some LoRAs, or hand their batches to the threads.

        Args:
            together: LoRAs -> numbers of their tasks.
            call: Gets the outcomes of these tasks.
            threads: Draw the batches.
        """
        planned: dict[LoRAsUsed, list[PlannedImage]] = {}
        for used, numbers in together.items():
            with self._refusing(numbers, call):
                planned[used] = self._plan(used, numbers, call.tasks)
                for image in planned[used]:
                    call.outcomes[image.number] = ImageResult(image.path)
        if all(image.there for images in planned.values() for image in images):
            return
        ready: list[ReadyImage] = []
        for used, images in planned.items():
            with self._refusing(together[used], call):
                ready += self._ready(used, images)
        for settings in dict.fromkeys(image.planned.task.settings for image in ready):
            chosen = [image for image in ready if image.planned.task.settings == settings]
            size = threads.batch_size(len(ready), settings.batch_size)
            for batch in batches([image.asked.alike for image in chosen], size):
                members = [chosen[place] for place in batch]
                if not all(image.planned.there for image in members):
                    draw = partial(self._draw_batch, members, settings, call, threads.stop)
                    threads.submit(draw)

    @contextmanager
    def _refusing(self, numbers: list[int], call: DrawingCall) -> Iterator[None]:
        """Make an error in the block the outcome of some tasks."""
        try:
            yield
        except (LabError, RuntimeError) as error:
            log.warning("%s: %s", call.tasks[numbers[0]].lora or self.base.name, error)
            for number in numbers:
                call.outcomes[number] = ImageResult(None, first_line(error))

    def _plan(
        self, used: LoRAsUsed, numbers: list[int], tasks: Sequence[ImageTask]
    ) -> list[PlannedImage]:
        """Find the places of the images of some LoRAs."""
        lora, _, tags = used
        main = self._files.read(lora) if lora is not None else None
        named = self.names.hashes(tags, self._width)
        planned = []
        for number in numbers:
            task = tasks[number]
            recipe = self._recipe(task, main, named)
            path, there = claim(task.path, recipe, task.plain_name)
            planned.append(PlannedImage(number, task, recipe, path, there))
        return planned

    def _ready(self, used: LoRAsUsed, images: list[PlannedImage]) -> list[ReadyImage]:
        """Merge the LoRAs of some images and encode their prompts."""
        lora, weight, tags = used
        main = self._files.read(lora) if lora is not None else None
        requests = [(image.task.request, image.task.settings) for image in images]
        asked, weights = self._prepare(main, weight, tags, requests)
        return [ReadyImage(image, one, weights) for image, one in zip(images, asked, strict=True)]

    def _prepare(
        self,
        main: LoRAFile | None,
        weight: float,
        tags: tuple[LoRATag, ...],
        requests: Sequence[tuple[ImageRequest, DrawSettings]],
    ) -> tuple[list[EncodedRequest], LayerWeights]:
        """The requests with their prompts encoded, and the weights of the UNet's changed layers.

        Raises:
            LabError: A LoRA does not fit, or settings do not suit the model.
        """
        changes = [(main.tensors, weight)] if main is not None else []
        changes += self.names.changes(tags)
        prefix = self.base.family.lora_prefixes["text_encoder"]
        parts: dict[bool, list[Change]] = {True: [], False: []}
        for tensors, strength in changes:
            for of_text, found in parts.items():
                own = {k: t for k, t in tensors.items() if k.startswith(prefix) == of_text}
                if own:
                    found.append((own, strength))
        merged = merged_weights(self._layers, parts[False])
        weights: LayerWeights = {self._layers[name]: w for name, w in merged.items()}
        text_encoder: list[Hashable] = [(tag.name, tag.text_encoder) for tag in tags]
        if main is not None and any(key.startswith(prefix) for key in main.tensors):
            text_encoder.append((main.digest, weight))
        cache = self._cache(tuple(text_encoder))
        self._merger.apply(parts[True])
        try:
            for settings in dict.fromkeys(settings for _, settings in requests):
                check_settings(self.base, settings)
            asked = [
                encode_request(self.base, request, settings, self.embeddings, cache)
                for request, settings in requests
            ]
        finally:
            self._merger.restore()
        return asked, weights

    def _cache(self, text_encoder: Hashable) -> EncodedCache:
        """What was encoded with a state of the text encoder; the oldest states are forgotten."""
        cache = self._encoded.pop(text_encoder, {})
        self._encoded[text_encoder] = cache
        while len(self._encoded) > self._loras_at_once:
            self._encoded.pop(next(iter(self._encoded)))
        return cache

    def _draw_batch(
        self,
        members: Sequence[ReadyImage],
        settings: DrawSettings,
        call: DrawingCall,
        stop: threading.Event,
    ) -> None:
        """Draw one batch, whose images with the same LoRAs stand side by side; on any thread."""
        owned = [
            (len(same), same[0].weights)
            for _, group in groupby(members, key=lambda image: id(image.weights))
            if (same := list(group))
        ]
        asked = [image.asked for image in members]
        missing = [image.planned.number for image in members if not image.planned.there]
        drawn: list[Drawn] = []
        with self._refusing(missing, call), self._unet.images(owned), self._vae.images():
            drawn = draw_batch(self.base, asked, settings, stop)
        for image, result in zip(members, drawn, strict=False):  # none after an error
            planned = image.planned
            if not planned.there:
                kept = _keep(planned.path, result, planned.recipe, call.writer)
                call.outcomes[planned.number] = kept

    def draw_again(
        self, recipe: ImageRecipe, main: LoRAFile | None
    ) -> tuple[Image.Image, ImageRecipe]:
        """Draw one image as a recipe says, at its place in a batch of itself.

        Which other images are in a batch makes no difference, so copies of the image stand there.

        Raises:
            LabError: A named file is missing or another one, or the image came out as NaN.
        """
        request = ImageRequest(recipe.prompt, recipe.negative, recipe.seed)
        settings = recipe_settings(recipe)
        tags = self.names.loras(recipe.prompt)
        found = self.names.hashes(tags, self._width)
        if found != recipe.names:
            raise LabError(
                f"the image was drawn with the named files {recipe.names}, but {found} were found: "
                "set sampling.lora_dir and sampling.embeddings to the folders of then"
            )
        requests = [(request, settings)] * recipe.batch_size
        asked, weights = self._prepare(main, recipe.lora_weight, tags, requests)
        with self._unet.images([(len(asked), weights)]), self._vae.images():
            result = draw_batch(self.base, asked, settings)[recipe.batch_place]
        if result.image is None:
            raise LabError(f"the image was not drawn: {result.problem}")
        lora = main.path if main else None
        task = ImageTask(Path(), request, settings, lora, recipe.lora_weight, plain_name=True)
        made = self._recipe(task, main, found)
        return result.image, made.at(recipe.batch_place, recipe.batch_size)

    def _recipe(self, task: ImageTask, main: LoRAFile | None, named: dict[str, str]) -> ImageRecipe:
        """What an image is made from; its place in a batch is known once it is drawn."""
        recipe = base_recipe(self.base, task.request, task.settings, task.weight, named)
        if main is None:
            return recipe
        return replace(recipe, lora=main.path.stem, lora_hash=main.hash, lora_digest=main.digest)


def base_recipe(
    base: BaseModel,
    request: ImageRequest,
    settings: DrawSettings,
    lora_weight: float,
    named: dict[str, str],
) -> ImageRecipe:
    """What an image of a base is made from, without its LoRA and its place in a batch."""
    return ImageRecipe(
        prompt=request.prompt,
        negative=request.negative,
        steps=settings.steps,
        sampler=settings.sampler,
        guidance=settings.guidance,
        seed=request.seed,
        width=settings.width,
        height=settings.height,
        clip_skip=settings.clip_skip,
        model=base.name,
        model_hash=base.fingerprint[:10],
        vae_hash=base.vae_fingerprint[:10],
        lora=None,
        lora_hash=None,
        lora_weight=lora_weight,
        lora_digest=None,
        names=named,
        batch_place=0,
        batch_size=0,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )


def recipe_settings(recipe: ImageRecipe) -> DrawSettings:
    """How an image was drawn, in a batch of its own size."""
    return DrawSettings(
        sampler=recipe.sampler,
        steps=recipe.steps,
        guidance=recipe.guidance,
        width=recipe.width,
        height=recipe.height,
        clip_skip=recipe.clip_skip,
        batch_size=recipe.batch_size,
    )


def _keep(path: Path, drawn: Drawn, recipe: ImageRecipe, writer: ImageWriter) -> ImageResult:
    """Hand an image over to be written."""
    if drawn.image is None:
        log.warning("%s was not drawn: %s", path, drawn.problem)
        return ImageResult(None, drawn.problem or "not drawn")
    writer.write(path, drawn.image, recipe.at(*drawn.place))
    return ImageResult(path, drawn=True)
