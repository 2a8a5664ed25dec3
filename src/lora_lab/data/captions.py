"""Captions beside the images, in kohya's layout.

``<repeats>_<trigger> <class>/image.png`` with ``image.txt`` beside it. An image without a caption
file takes the folder's name without the number.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from lora_lab.config import DataConfig
from lora_lab.config.data import MAX_REPEATS
from lora_lab.errors import LabError
from lora_lab.files import read_text
from lora_lab.randomness import derive_seed, generator, shuffled

log = logging.getLogger(__name__)

MAX_BYTES = 2**15
"""A caption has some hundred; CLIP reads the first 77 tokens."""
CAPTION_EXTENSIONS = (".txt", ".caption", ".cap")
"""What caption files are called here and there; data.caption_extension says which are read."""
FOLDER_NAME = re.compile(r"(\d+)_(.+)")


@dataclass(frozen=True)
class Caption:
    """One image's text and where it comes from."""

    text: str
    """The caption, without line ends."""
    from_folder: bool
    """Whether the folder's name stands in for a missing file."""
    unread: Path | None = None
    """A caption file with another extension, where the folder's name stands in."""
    lines: int = 1
    """Lines of the file that hold something."""


def folder_meaning(folder: Path) -> tuple[int, str]:
    """Repeats and class text of a kohya folder: ``10_zqx person`` -> (10, "zqx person").

    Raises:
        LabError: The name has no number in front, or one that is out of range.
    """
    match = FOLDER_NAME.fullmatch(folder.name)
    if match is None or len(match[1]) > 9 or not 1 <= int(match[1]) <= MAX_REPEATS:
        raise LabError(
            f"{folder}: the folder's name must be <repeats>_<trigger> <class> with repeats from 1 "
            f"to {MAX_REPEATS}, "
            f"got {folder.name!r}; rename it, for example to '1_{folder.name}'"
        )
    return int(match[1]), match[2].strip()


def read_caption(
    image: Path,
    extension: str,
    class_text: str,
    listed: str | None = None,
    lines: str = "all",
) -> Caption:
    """The caption of an image.

    Args:
        image: The image file.
        extension: Of the caption file that lies beside it, e.g. ``.txt``.
        class_text: What an image without a caption file is called.
        listed: What metadata.jsonl says, if it names the image.
        lines: Which lines of the file are read: ``all``, joined by spaces, or ``first``.

    Raises:
        LabError: The file is empty or isn't UTF-8, or metadata.jsonl says something else.
    """
    path = image.with_suffix(extension)
    if not path.is_file():
        if listed is not None:
            return Caption(listed, from_folder=False)
        others = (image.with_suffix(other) for other in CAPTION_EXTENSIONS)
        unread = next((other for other in others if other.is_file()), None)
        return Caption(class_text, from_folder=True, unread=unread)
    found = _caption_lines(path, class_text)
    text = found[0] if lines == "first" else " ".join(found)
    if listed is not None and listed != text:
        raise LabError(
            f"{path} says {text!r}, metadata.jsonl says {listed!r}; remove one of the two"
        )
    return Caption(text, from_folder=False, lines=len(found))


def _caption_lines(path: Path, class_text: str) -> list[str]:
    try:
        text = read_text(path, MAX_BYTES, encoding="utf-8-sig")
    except OSError as error:
        raise LabError(
            f"{path}: the caption can't be read ({error.strerror}); check the file"
        ) from error
    except UnicodeDecodeError as error:
        raise LabError(
            f"{path}: a caption must be UTF-8, byte {error.start} is not; save the file as UTF-8"
        ) from error
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    if not lines:
        raise LabError(
            f"{path}: the caption file is empty; write a caption or delete the file, "
            f"then the image is called {class_text!r}"
        )
    return lines


def with_trigger(text: str, trigger: str | None) -> str:
    """The caption with the trigger as its first part, unless it begins with it."""
    if trigger is None or text == trigger or text.startswith((f"{trigger},", f"{trigger} ")):
        return text
    return f"{trigger}, {text}"


def kept_parts(text: str, config: DataConfig) -> int:
    """How many parts at the start of a caption stay: the trigger, and data.keep_tokens."""
    trigger = config.trigger
    if trigger is None or not text.startswith(trigger):
        return config.keep_tokens
    return max(config.keep_tokens, len(trigger.split(",")))


def training_caption(
    text: str, config: DataConfig, seed: int, image_key: str, step: int, epoch: int, occurrence: int
) -> str:
    """The caption that one sample trains with.

    In kohya's order: all of it dropped, or its parts shuffled and some left out. Each choice
    depends on seed, image, step and occurrence alone.

    Args:
        text: The caption, with the trigger.
        config: What is on.
        seed: Of the run.
        image_key: Of the image.
        step: Optimizer step, from 1.
        epoch: From 1.
        occurrence: How often the image occurred earlier in the same step.
    """
    every, names = config.caption_dropout_every_n_epochs, (image_key, step, occurrence)
    if every and epoch % every == 0:
        return ""
    rate = config.caption_dropout_rate
    if rate and derive_seed(seed, "caption_dropout", *names) / 2**63 < rate:
        return ""
    kept = kept_parts(text, config)
    if config.caption_tag_dropout_rate:
        text = drop_tags(text, kept, config.caption_tag_dropout_rate, seed, *names)
    if config.shuffle_caption:
        text = shuffle_caption(text, kept, seed, *names)
    return text


def drop_tags(
    text: str, keep_tokens: int, rate: float, seed: int, image_key: str, step: int, occurrence: int
) -> str:
    """The caption without some of its comma-separated parts; the first ``keep_tokens`` stay."""
    parts = [part.strip() for part in text.split(",")]
    draws = torch.rand(
        len(parts), generator=generator(seed, "tag_dropout", image_key, step, occurrence)
    )
    stays = [index < keep_tokens or draws[index] >= rate for index in range(len(parts))]
    return ", ".join(part for part, stay in zip(parts, stays, strict=True) if stay)


def shuffle_caption(
    text: str, keep_tokens: int, seed: int, image_key: str, step: int, occurrence: int
) -> str:
    """The comma-separated parts in a new order, the first ``keep_tokens`` of them in place.

    The order depends on seed, image, step and occurrence alone.
    """
    parts = [part.strip() for part in text.split(",")]
    kept, rest = parts[:keep_tokens], parts[keep_tokens:]
    return ", ".join(kept + shuffled(rest, seed, "caption", image_key, step, occurrence))
