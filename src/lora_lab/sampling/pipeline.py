"""Draws images of any number of LoRA files on one base, which stays in memory.

A LoRA is added to the base's weights and taken away again. Drawing images of several LoRAs in one
batch, with each image's own low-rank change beside the layers, was measured and is not faster on a
CPU (docs/grids.md), so images share a batch when they share their LoRAs.
"""

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.config import SamplingConfig
from lora_lab.errors import LabError, first_line
from lora_lab.images.png_info import ImageRecipe
from lora_lab.lora_file.merge import LoRAMerger
from lora_lab.prompts import LoRATag
from lora_lab.sampling.devices import choose_device
from lora_lab.sampling.generate import (
    Drawn,
    DrawSettings,
    EncodedCache,
    ImageRequest,
    draw_images,
)
from lora_lab.sampling.image_files import ImageWriter, claim
from lora_lab.sampling.lora_files import LoRAFile, LoRAFileCache
from lora_lab.sampling.prompt_names import PromptNames

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


Weights = tuple[Path | None, float, tuple[LoRATag, ...]]
"""LoRA, its weight, and the LoRAs that a prompt names: what a state of the base's weights is."""


class LoRAPipeline:
    """One base checkpoint, and LoRAs that come and go.

    Args:
        base: Without LoRA layers. Its UNet and VAE go to the device that the config names.
        config: How to draw.

    Raises:
        LabError: A textual inversion can't be read, or there is no such device.
    """

    def __init__(self, base: BaseModel, config: SamplingConfig) -> None:
        self.base = base
        device = choose_device(config.device)
        base.unet.to(device)
        base.vae.to(device)
        self.names = PromptNames(config)
        self._width = base.text_encoder.config.hidden_size
        self.embeddings = self.names.embeddings(self._width)
        self._merger = LoRAMerger(base)
        self._files = LoRAFileCache()
        self._encoded: EncodedCache = {}
        self._text_encoder: list[Hashable] = []

    def draw(self, tasks: Sequence[ImageTask]) -> list[ImageResult]:
        """Draw what is not there yet, LoRA by LoRA.

        Returns:
            One result a task. A LoRA that can't be read or does not fit, and an image with NaN,
            come back as problems.

        Raises:
            LabError: An image can't be written.
        """
        self._files.forget()  # a file may be another one by now
        outcomes = [ImageResult(None, "not drawn") for _ in tasks]
        groups: dict[Weights, list[int]] = {}
        for index, task in enumerate(tasks):
            try:
                tags = self.names.loras(task.request.prompt)
            except LabError as error:
                outcomes[index] = ImageResult(None, first_line(error))
                continue
            groups.setdefault((task.lora, task.weight, tags), []).append(index)
        with ImageWriter() as writer:
            for weights, indices in groups.items():
                found = self._attempt(weights, [tasks[index] for index in indices], writer)
                for index, outcome in zip(indices, found, strict=True):
                    outcomes[index] = outcome
        return outcomes

    def _attempt(
        self, weights: Weights, tasks: list[ImageTask], writer: ImageWriter
    ) -> list[ImageResult]:
        """The images of one state of the base's weights; an error is the outcome of all of them."""
        try:
            return self._draw_group(weights, tasks, writer)
        except (LabError, RuntimeError) as error:
            log.warning("%s: %s", weights[0] or self.base.name, error)
            return [ImageResult(None, first_line(error)) for _ in tasks]
        finally:
            self._merger.restore()

    def _draw_group(
        self, weights: Weights, tasks: list[ImageTask], writer: ImageWriter
    ) -> list[ImageResult]:
        lora, weight, tags = weights
        main = self._files.read(lora) if lora is not None else None
        named = self.names.hashes(tags, self._width)
        recipes = [self._recipe(task, main, named) for task in tasks]
        places = [
            claim(task.path, recipe, task.plain_name)
            for task, recipe in zip(tasks, recipes, strict=True)
        ]
        outcomes = [ImageResult(path) for path, _ in places]
        if all(there for _, there in places):
            return outcomes
        self._apply(main, weight, tags)
        for settings in dict.fromkeys(task.settings for task in tasks):
            indices = [i for i, task in enumerate(tasks) if task.settings == settings]
            missing = {n for n, i in enumerate(indices) if not places[i][1]}
            if not missing:
                continue
            requests = [tasks[i].request for i in indices]
            drawn = self._draw_images(requests, settings, missing)
            for number in missing:
                index = indices[number]
                path = places[index][0]
                outcomes[index] = _keep(path, drawn[number], recipes[index], writer)
        return outcomes

    def _draw_images(
        self, requests: list[ImageRequest], settings: DrawSettings, missing: set[int]
    ) -> list[Drawn]:
        return draw_images(
            self.base, requests, settings, self.embeddings, wanted=missing, cache=self._encoded
        )

    def _apply(self, main: LoRAFile | None, weight: float, tags: tuple[LoRATag, ...]) -> None:
        """Add the LoRAs to the base; what was encoded stays if the text encoder does."""
        changes = [(main.tensors, weight)] if main is not None else []
        self._merger.apply([*changes, *self.names.changes(tags)])
        text_encoder: list[Hashable] = [(tag.name, tag.text_encoder) for tag in tags]
        prefix = self.base.family.lora_prefixes["text_encoder"]
        if main is not None and any(key.startswith(prefix) for key in main.tensors):
            text_encoder.append((main.digest, weight))
        if text_encoder != self._text_encoder:
            self._encoded.clear()
            self._text_encoder = text_encoder

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
        self._apply(main, recipe.lora_weight, tags)
        try:
            drawn = draw_images(self.base, [request] * recipe.batch_size, settings, self.embeddings)
        finally:
            self._merger.restore()
        result = drawn[recipe.batch_place]
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
