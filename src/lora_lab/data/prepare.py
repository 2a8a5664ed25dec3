"""From examples to items: each image in its bucket, encoded to latents.

Random crops and colours would make an encoded image useless for the next epoch. So a few of them
are drawn for each image (``data.variants``), from the image's name alone, and all are encoded once;
a training sample takes one of them. Memory or disk then hold them like any other latent.

Shapes: C latent channels, h and w latent sides.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.config import DataConfig
from lora_lab.data.buckets import (
    Placement,
    bucket_sizes,
    crop_at,
    nearest_bucket,
    place,
    place_without_upscale,
    rounded_limits,
)
from lora_lab.data.checked_tensors import tensors_digest
from lora_lab.data.examples import Example
from lora_lab.data.images import ColorChange, ImageFile
from lora_lab.data.latent_cache import LatentCache, Posterior
from lora_lab.data.masks import load_mask
from lora_lab.errors import ConfigError, LabError
from lora_lab.randomness import derive_seed

AUGMENTATION_SEED = 0
"""Crops and colours are the same in all runs, so that these share latents."""
HUE, GAMMA = 6, 0.05
"""Largest change of hue in 1/256 of the circle (8 degrees), and of gamma."""


@dataclass(frozen=True)
class View:
    """One crop, colour and side of an image."""

    posterior: Posterior
    mask: Tensor | None = None
    """Weights of the latent pixels, (1, h, w)."""


@dataclass(frozen=True)
class Item:
    """One image, ready for training."""

    example: Example
    bucket: tuple[int, int]
    """Width and height in pixels."""
    views: tuple[View, ...]
    """The variants; one of them unless crops or colours are random."""
    mirrored: tuple[View, ...]
    """The same of the mirrored image; empty when images aren't mirrored."""

    @property
    def latents(self) -> Tensor:
        """The mean latents of the first variant, (C, h, w)."""
        return self.views[0].posterior.mean


def prepare(
    examples: Iterable[Example],
    base: BaseModel,
    cache: LatentCache,
    config: DataConfig,
    augment: bool,
) -> list[Item]:
    """Put each image into its bucket and encode it.

    Args:
        examples: The images.
        base: Whose VAE encodes.
        cache: Keeps what was encoded.
        config: Resolution, buckets, augmentation, masks.
        augment: Whether images are mirrored, cropped and coloured at random, where the config says
            so; held-out images are not.

    Raises:
        ConfigError: Resolution or bucket step don't suit the base model.
        LabError: An image can't be encoded or is too small for a bucket.
    """
    step = bucket_step(config, base)
    sizes = allowed_buckets(config, step)
    items = []
    for example in examples:
        placement = find_placement(example.image, config, sizes, step)
        changes = list(_variants(example, placement, config)) if augment else [(placement, None)]
        views = [_view(example, base, cache, config, change, flip=False) for change in changes]
        mirrored = (
            [_view(example, base, cache, config, change, flip=True) for change in changes]
            if augment and config.flip
            else []
        )
        items.append(Item(example, placement.bucket, tuple(views), tuple(mirrored)))
    return items


def bucket_step(config: DataConfig, base: BaseModel) -> int:
    """What bucket sides are multiples of, in pixels.

    Raises:
        ConfigError: The VAE can't encode such sizes, or the resolution is smaller.
    """
    factor = base.latent_factor
    step = config.bucket_reso_steps or base.size_step
    if step % factor:
        raise ConfigError(
            f"data.bucket_reso_steps must be a multiple of {factor} with {base.name}, got {step}"
        )
    if config.resolution < step:
        raise ConfigError(
            f"data.resolution must be >= {step} with {base.name}, got {config.resolution}"
        )
    return step


def allowed_buckets(config: DataConfig, step: int) -> list[tuple[int, int]]:
    """The buckets (width, height) of a config; the square alone without buckets."""
    resolution = config.resolution
    if not config.enable_bucket:
        return [(resolution // step * step,) * 2]
    smallest = config.min_bucket_reso or max(step, resolution // 2)
    return bucket_sizes(resolution, smallest, config.max_bucket_reso or 2 * resolution, step)


def bucket_limits(config: DataConfig, step: int) -> tuple[int, int] | None:
    """Shortest and longest side of the buckets, as rounded; None where no limit is read."""
    if not config.enable_bucket:
        return None
    smallest = config.min_bucket_reso or max(step, config.resolution // 2)
    return rounded_limits(smallest, config.max_bucket_reso or 2 * config.resolution, step)


def find_placement(
    image: ImageFile, config: DataConfig, sizes: list[tuple[int, int]], step: int
) -> Placement:
    """An image's bucket, and its crop at the centre.

    Raises:
        LabError: The image is smaller than one step and may not be enlarged.
    """
    width, height = image.size
    if not (config.enable_bucket and config.bucket_no_upscale):
        return place(width, height, nearest_bucket(width, height, sizes))
    placement = place_without_upscale(width, height, config.resolution, step)
    if not all(placement.bucket):
        raise LabError(
            f"{image.path}: {width}x{height} pixels are too few for a bucket in steps of {step}; "
            "remove it, or set data.bucket_no_upscale=false"
        )
    return placement


def _variants(
    example: Example, centre: Placement, config: DataConfig
) -> Iterable[tuple[Placement, ColorChange | None]]:
    """Crops and colours of an image; they depend on its name and their number alone."""
    for variant in range(config.variants):

        def draw(what: str, variant: int = variant) -> int:
            return derive_seed(AUGMENTATION_SEED, what, example.key, variant)

        placement, color = centre, None
        if config.random_crop:
            draws = (draw("crop_left"), draw("crop_top"))
            placement = crop_at(centre.scaled, centre.bucket, draws)
        if config.color_aug:
            bend = GAMMA * (2 * draw("gamma") / 2**63 - 1)
            color = ColorChange(draw("hue") % (2 * HUE + 1) - HUE, 1.0 + bend)
        yield placement, color


def _view(
    example: Example,
    base: BaseModel,
    cache: LatentCache,
    config: DataConfig,
    change: tuple[Placement, ColorChange | None],
    flip: bool,
) -> View:
    placement, color = change
    posterior = cache.posterior(
        *(base, example.image, placement, flip, color),
        precision=config.vae_precision,
        resize_filter=config.resize_filter,
    )
    mask = None
    if example.mask is not None:
        mask = load_mask(example.mask, placement, flip, base.latent_factor)
    return View(posterior, mask)


def latents_fingerprint(part: str, items: list[Item]) -> str:
    """sha256 over everything that some images were encoded to.

    Args:
        part: What they are, train or held_out.
        items: The images.
    """
    latents: dict[str, Tensor] = {}
    for item in items:
        for side, views in (("", item.views), ("/mirrored", item.mirrored)):
            for number, view in enumerate(views):
                name = f"{part}/{item.example.key}{side}" + (f"/{number}" if number else "")
                latents[name] = view.posterior.mean
    return tensors_digest(latents)


def sampled(posterior: Posterior, generator: torch.Generator) -> Tensor:
    """Latents drawn from the VAE's distribution, (C, h, w)."""
    return posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
