"""Reads a data folder in kohya's layout: ``train/<repeats>_<trigger> <class>/`` and the like."""

import logging
from pathlib import Path

from lora_lab.assets import locate
from lora_lab.config import DataConfig
from lora_lab.data.captions import folder_meaning, read_caption
from lora_lab.data.examples import Example, Examples
from lora_lab.data.images import open_image
from lora_lab.errors import ConfigError, LabError

log = logging.getLogger(__name__)

IMAGE_EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


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
