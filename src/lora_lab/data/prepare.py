"""From examples to items: each image in its bucket, encoded to latents.

Shapes: C latent channels, h and w latent sides.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from lora_lab.base_model import BaseModel
from lora_lab.data.buckets import Placement, bucket_sizes, nearest_bucket, place
from lora_lab.data.examples import Example
from lora_lab.data.images import ImageFile
from lora_lab.data.latent_cache import LatentCache, fingerprint_latents
from lora_lab.errors import ConfigError


@dataclass(frozen=True)
class Item:
    """One image, ready for training."""

    example: Example
    bucket: tuple[int, int]
    """Width and height in pixels."""
    latents: Tensor
    """(C, h, w)"""
    mirrored: Tensor | None
    """Latents of the mirrored image; None when images aren't mirrored."""


def prepare(
    examples: Iterable[Example], base: BaseModel, cache: LatentCache, resolution: int, flip: bool
) -> list[Item]:
    """Put each image into its bucket and encode it.

    Raises:
        ConfigError: ``resolution`` is smaller than what the UNet halves down to one latent.
        LabError: An image can't be encoded.
    """
    step = base.latent_factor * 2 ** (len(base.unet.config["block_out_channels"]) - 1)
    if resolution < step:
        raise ConfigError(f"data.resolution must be >= {step} with {base.name}, got {resolution}")
    sizes = bucket_sizes(resolution, max(step, resolution // 2), 2 * resolution, step)
    items = []
    for example in examples:
        placement = _placement(example.image, sizes)
        latents = cache.latent(base, example.image, placement, flip=False)
        mirrored = cache.latent(base, example.image, placement, flip=True) if flip else None
        items.append(Item(example, placement.bucket, latents, mirrored))
    return items


def _placement(image: ImageFile, sizes: list[tuple[int, int]]) -> Placement:
    width, height = image.size
    return place(width, height, nearest_bucket(width, height, sizes))


def latents_fingerprint(train: list[Item], held_out: list[Item]) -> str:
    """sha256 over everything that training and held-out images were encoded to."""
    latents = {}
    for part, items in (("train", train), ("held_out", held_out)):
        for item in items:
            latents[f"{part}/{item.example.key}"] = item.latents
            if item.mirrored is not None:
                latents[f"{part}/{item.example.key}/mirrored"] = item.mirrored
    return fingerprint_latents(latents)
