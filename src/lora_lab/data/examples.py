"""What a data folder holds: images with their captions, as found on disk."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field

from lora_lab.data.captions import Caption
from lora_lab.data.images import ImageFile
from lora_lab.data.masks import MaskFile


@dataclass(frozen=True)
class Example:
    """One image with its caption, as found on disk."""

    key: str
    """Folder and file name, which stand for the image in everything random."""
    image: ImageFile
    caption: Caption
    repeats: int
    """How often an epoch shows it."""
    is_reg: bool = False
    """Whether it is a regularisation image, whose loss has the prior's weight."""
    mask: MaskFile | None = None

    @property
    def folder(self) -> str:
        """Name of the folder that the image lies in."""
        return self.image.path.parent.name


@dataclass(frozen=True)
class Examples:
    """What a data folder holds."""

    train: list[Example]
    held_out: list[Example]
    reg: list[Example] = field(default_factory=list)
    """Regularisation images, their repeats matched in sum to the training images'."""

    def fingerprints(self) -> dict[str, str]:
        """sha256 over all images and masks, and over their captions and repeats."""
        images, captions = hashlib.sha256(), hashlib.sha256()
        parts = (("train", self.train), ("held_out", self.held_out), ("reg", self.reg))
        for part, examples in parts:
            for example in examples:
                images.update(f"{part} {example.key} {example.image.sha256}\n".encode())
                if example.mask is not None:
                    images.update(f"{part} {example.key} mask {example.mask.sha256}\n".encode())
                text = f"{part} {example.key} {example.repeats} {example.caption.text}\n"
                captions.update(text.encode())
        return {"images": images.hexdigest(), "captions": captions.hexdigest()}


def tag_frequency(examples: list[Example]) -> dict[str, dict[str, int]]:
    """Folder name -> comma-separated part of the captions -> how many images have it."""
    counts: dict[str, Counter[str]] = {}
    for example in examples:
        tags = [tag.strip() for tag in example.caption.text.split(",") if tag.strip()]
        counts.setdefault(example.folder, Counter()).update(tags)
    return {folder: dict(counter.most_common()) for folder, counter in counts.items()}


def folder_counts(examples: list[Example]) -> dict[str, tuple[int, int]]:
    """Folder name -> (repeats, number of images)."""
    images = Counter(example.folder for example in examples)
    repeats = {example.folder: example.repeats for example in reversed(examples)}
    return {folder: (repeats[folder], images[folder]) for folder in images}
