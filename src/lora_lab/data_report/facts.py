"""Everything that the data report says, as plain facts."""

from collections import Counter
from dataclasses import dataclass
from math import ceil

from PIL import Image

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.checkpoint.embedded import locate
from lora_lab.config import TrainConfig
from lora_lab.data.buckets import Placement
from lora_lab.data.examples import Example, Examples, folder_counts
from lora_lab.data.folders import find_examples, image_folder
from lora_lab.data.images import placed, upright
from lora_lab.data.leftovers import Leftover, find_leftovers
from lora_lab.data.prepare import allowed_buckets, bucket_step, find_placement
from lora_lab.data.truncation import token_counts
from lora_lab.data_report.quality import BLURRED, laplacian_variance, near_groups, perceptual_hash


@dataclass(frozen=True)
class ImageFacts:
    """One image."""

    part: str
    """``train``, ``reg`` or ``held_out``."""
    key: str
    path: str
    size: tuple[int, int]
    """Width and height in pixels."""
    bucket: tuple[int, int]
    repeats: int
    enlarged: float
    """By how much training enlarges it, per side; 1 or less: not at all."""
    cut: float
    """Share of the scaled image outside of the crop."""
    sharpness: float
    """Variance of the Laplacian, in training size."""
    caption: str
    caption_from_folder: bool
    caption_lines: int
    """Lines of the caption file that hold something."""
    tokens: int
    has_mask: bool
    findings: tuple[str, ...]
    """What somebody should look at."""


@dataclass(frozen=True)
class BucketFacts:
    """One bucket of the training and regularisation images."""

    size: tuple[int, int]
    images: int
    samples: int
    """Images times their repeats."""
    batches: int
    last_batch: int
    """Images in the bucket's last batch; fewer than the batch size waste a part of a step."""


@dataclass(frozen=True)
class DataReport:
    """A data folder as a run would see it."""

    folder: str
    resolution: int
    batch_size: int
    max_token_length: int
    concepts: dict[str, tuple[int, int]]
    """Folder -> (repeats, images) of training images."""
    reg_concepts: dict[str, tuple[int, int]]
    steps_per_epoch: int
    images: list[ImageFacts]
    buckets: list[BucketFacts]
    leftovers: list[Leftover]
    """Files and folders that no run reads."""
    duplicates: list[list[str]]
    """Groups of images that are nearly the same, each as ``part: key``."""

    def of(self, part: str) -> list[ImageFacts]:
        """The images of a part."""
        return [image for image in self.images if image.part == part]

    def findings(self) -> dict[str, int]:
        """Finding -> how many images have it, the most frequent first."""
        counts = Counter(finding for image in self.images for finding in image.findings)
        return dict(counts.most_common())


DUPLICATE, LEAKED = "nearly a duplicate", "held out and trained on alike"
TOO_LONG, NO_CAPTION = "caption cut off", "no caption file"
SMALL, BLURRY, CROPPED = "enlarged", "blurred", "much cropped"
LINES = "caption of several lines"
MUCH = 0.25
"""A crop that takes away more than this share is told."""


def gather(config: TrainConfig, base: BaseModel) -> DataReport:
    """Look at a data folder as a run of this config would.

    Args:
        config: Whose ``data`` section counts, and the accumulation.
        base: Tokenizer and configs; no weights are needed.

    Raises:
        LabError: See ``find_examples``.
    """
    examples = find_examples(config.data)
    parts = parts_of(examples)
    step = bucket_step(config.data, base)
    sizes = allowed_buckets(config.data, step)
    every = [example for _, example in parts]
    tokens = token_counts(every, base.tokenizer, config.data)
    pictures = [upright(example.image.path) for example in every]
    groups = near_groups([perceptual_hash(picture) for picture in pictures])
    images = []
    for index, (part, example) in enumerate(parts):
        group = next((group for group in groups if index in group), [index])
        placement = find_placement(example.image, config.data, sizes, step)
        facts = _image_facts(part, example, placement, pictures[index], tokens[index])
        found = _findings(facts, {parts[other][0] for other in group}, len(group), config)
        images.append(_with_findings(facts, found))
    buckets = _buckets(images, config.data.batch_size)
    batches = sum(bucket.batches for bucket in buckets)
    return DataReport(
        folder=config.data.dir,
        resolution=config.data.resolution,
        batch_size=config.data.batch_size,
        max_token_length=config.data.max_token_length,
        concepts=folder_counts(examples.train),
        reg_concepts=folder_counts(examples.reg),
        steps_per_epoch=ceil(batches / config.trainer.accumulate_grad_batches),
        images=images,
        buckets=buckets,
        leftovers=_leftovers(config),
        duplicates=[[f"{parts[i][0]}: {parts[i][1].key}" for i in group] for group in groups],
    )


def _leftovers(config: TrainConfig) -> list[Leftover]:
    """What is not read in the folders of training, regularisation and held-out images."""
    root = locate(config.data.dir)
    folders = [image_folder(root)]
    for given, name in ((config.data.reg_dir, "reg"), (config.data.held_out_dir, "held_out")):
        folders.append(locate(given) if given is not None else root / name)
    return [
        Leftover(f"{folder.name}/{left.path}", left.why)
        for folder in folders
        if folder.is_dir()
        for left in find_leftovers(folder, config.data.caption_extension)
    ]


def parts_of(examples: Examples) -> list[tuple[str, Example]]:
    """All images with the part that they belong to."""
    parts = (("train", examples.train), ("reg", examples.reg), ("held_out", examples.held_out))
    return [(part, example) for part, found in parts for example in found]


def _image_facts(
    part: str, example: Example, placement: Placement, picture: Image.Image, tokens: int
) -> ImageFacts:
    (width, height), scaled = example.image.size, placement.scaled
    bucket = placement.bucket
    seen = placed(picture, placement, False, Image.Resampling.LANCZOS)
    return ImageFacts(
        part=part,
        key=example.key,
        path=str(example.image.path),
        size=(width, height),
        bucket=bucket,
        repeats=example.repeats,
        enlarged=max(scaled[0] / width, scaled[1] / height),
        cut=1.0 - bucket[0] * bucket[1] / (scaled[0] * scaled[1]),
        sharpness=laplacian_variance(seen),
        caption=example.caption.text,
        caption_from_folder=example.caption.from_folder,
        caption_lines=example.caption.lines,
        tokens=tokens,
        has_mask=example.mask is not None,
        findings=(),
    )


def _findings(
    facts: ImageFacts, parts_of_group: set[str], group_size: int, config: TrainConfig
) -> list[str]:
    held_and_trained = "held_out" in parts_of_group and len(parts_of_group) > 1
    checks = (
        (LEAKED, held_and_trained),
        (DUPLICATE, group_size > 1 and not held_and_trained),
        (TOO_LONG, facts.tokens > config.data.max_token_length),
        (LINES, facts.caption_lines > 1),
        (NO_CAPTION, facts.caption_from_folder and facts.part == "train"),
        (SMALL, facts.enlarged > 1.0 + 1e-9),
        (BLURRY, facts.sharpness < BLURRED),
        (CROPPED, facts.cut > MUCH),
    )
    return [name for name, holds in checks if holds]


def _with_findings(facts: ImageFacts, found: list[str]) -> ImageFacts:
    return ImageFacts(**{**vars(facts), "findings": tuple(found)})


def _buckets(images: list[ImageFacts], batch_size: int) -> list[BucketFacts]:
    sizes: dict[tuple[int, int], list[ImageFacts]] = {}
    for image in images:
        if image.part != "held_out":
            sizes.setdefault(image.bucket, []).append(image)
    buckets = []
    for size, held in sorted(sizes.items()):
        samples = sum(image.repeats for image in held)
        batches = ceil(samples / batch_size)
        last = samples - (batches - 1) * batch_size
        buckets.append(BucketFacts(size, len(held), samples, batches, last))
    return buckets
