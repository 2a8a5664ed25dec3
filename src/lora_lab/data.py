"""Training data: kohya folders, latents and tokens, and batches whose randomness is paired.

Shapes: B images a batch, C latent channels, h and w latent sides, L tokens a caption.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lora_lab.assets import locate
from lora_lab.base_model import BaseModel
from lora_lab.buckets import Placement, bucket_sizes, nearest_bucket, place
from lora_lab.captions import Caption, folder_meaning, read_caption
from lora_lab.config import DataConfig
from lora_lab.errors import ConfigError, LabError
from lora_lab.latents import ImageFile, LatentCache, fingerprint_latents, open_image

log = logging.getLogger(__name__)

IMAGE_EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


@dataclass(frozen=True)
class Example:
    """One image with its caption, as found on disk."""

    key: str
    """Folder and file name, which stand for the image in everything random."""
    image: ImageFile
    caption: Caption
    repeats: int
    """How often an epoch shows it."""

    @property
    def folder(self) -> str:
        """Name of the folder that the image lies in."""
        return self.image.path.parent.name


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


@dataclass(frozen=True)
class Examples:
    """What a data folder holds."""

    train: list[Example]
    held_out: list[Example]

    def fingerprints(self) -> dict[str, str]:
        """sha256 over the training and held-out images, and over their captions and repeats."""
        images, captions = hashlib.sha256(), hashlib.sha256()
        for part, examples in (("train", self.train), ("held_out", self.held_out)):
            for example in examples:
                images.update(f"{part} {example.key} {example.image.sha256}\n".encode())
                text = f"{part} {example.key} {example.repeats} {example.caption.text}\n"
                captions.update(text.encode())
        return {"images": images.hexdigest(), "captions": captions.hexdigest()}


def find_examples(config: DataConfig) -> Examples:
    """Read the data folder: images, captions and repeats.

    Raises:
        LabError: A folder is missing, holds no images or has no number in its name; an image or a
            caption can't be read.
        ConfigError: ``data.batch_size`` is larger than the set.
    """
    root = locate(config.dir)
    train = scan(root / "train", config)
    shown = sum(example.repeats for example in train)
    if config.batch_size > shown:
        raise ConfigError(
            f"data.batch_size must be at most {shown} for {root} ({len(train)} images times their "
            f"repeats), got {config.batch_size}; lower it or raise data.repeats"
        )
    nameless = sum(example.caption.from_folder for example in train)
    if nameless:
        log.warning(
            "%d of %d training images have no %s file beside them: they are called %s",
            nameless,
            len(train),
            config.caption_extension,
            ", ".join(sorted({repr(e.caption.text) for e in train if e.caption.from_folder})),
        )
    return Examples(train, _held_out(root, config))


def scan(folder: Path, config: DataConfig) -> list[Example]:
    """All images in the kohya folders below a folder, in the order of their keys.

    Raises:
        LabError: See ``find_examples``.
    """
    if not folder.is_dir():
        raise LabError(
            f"{folder} is missing; data.dir must hold images in train/<repeats>_<trigger> <class>/"
        )
    examples = []
    for subfolder in sorted(path for path in folder.iterdir() if path.is_dir()):
        repeats, class_text = folder_meaning(subfolder)
        for path in sorted(subfolder.iterdir()):
            if path.suffix.lower() in IMAGE_EXTENSIONS and not path.name.startswith("."):
                caption = read_caption(path, config.caption_extension, class_text)
                examples.append(
                    Example(
                        key=f"{subfolder.name}/{path.name}",
                        image=open_image(path),
                        caption=caption,
                        repeats=config.repeats or repeats,
                    )
                )
    if not examples:
        raise LabError(
            f"{folder} holds no images in folders named <repeats>_<trigger> <class>; put "
            f"{', '.join(sorted(IMAGE_EXTENSIONS))} files there"
        )
    return examples


def _held_out(root: Path, config: DataConfig) -> list[Example]:
    if config.held_out_dir is not None:
        return scan(locate(config.held_out_dir), config)
    return scan(root / "held_out", config) if (root / "held_out").is_dir() else []


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


def tag_frequency(examples: list[Example]) -> dict[str, dict[str, int]]:
    """Folder name -> comma-separated part of the captions -> how many images have it."""
    counts: dict[str, Counter[str]] = {}
    for example in examples:
        tags = [tag.strip() for tag in example.caption.text.split(",") if tag.strip()]
        counts.setdefault(example.folder, Counter()).update(tags)
    return {folder: dict(counter.most_common()) for folder, counter in counts.items()}
