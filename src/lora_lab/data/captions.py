"""Captions beside the images, in kohya's layout.

``<repeats>_<trigger> <class>/image.png`` with ``image.txt`` beside it. An image without a caption
file takes the folder's name without the number.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from lora_lab.errors import LabError
from lora_lab.randomness import shuffled

log = logging.getLogger(__name__)

FOLDER_NAME = re.compile(r"(\d+)_(.+)")


@dataclass(frozen=True)
class Caption:
    """One image's text and where it comes from."""

    text: str
    """The caption, without line ends."""
    from_folder: bool
    """Whether the folder's name stands in for a missing file."""


def folder_meaning(folder: Path) -> tuple[int, str]:
    """Repeats and class text of a kohya folder: ``10_zqx person`` -> (10, "zqx person").

    Raises:
        LabError: The name has no number in front, or the number is 0.
    """
    match = FOLDER_NAME.fullmatch(folder.name)
    if match is None or int(match[1]) < 1:
        raise LabError(
            f"{folder}: the folder's name must be <repeats>_<trigger> <class> with repeats >= 1, "
            f"got {folder.name!r}; rename it, for example to '1_{folder.name}'"
        )
    return int(match[1]), match[2].strip()


def read_caption(image: Path, extension: str, class_text: str) -> Caption:
    """The caption of an image.

    Args:
        image: The image file.
        extension: Of the caption file that lies beside it, e.g. ``.txt``.
        class_text: What an image without a caption file is called.

    Raises:
        LabError: The file is empty or isn't UTF-8.
    """
    path = image.with_suffix(extension)
    if not path.is_file():
        return Caption(class_text, from_folder=True)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabError(
            f"{path}: a caption must be UTF-8, byte {error.start} is not; save the file as UTF-8"
        ) from error
    text = " ".join(text.split())
    if not text:
        raise LabError(
            f"{path}: the caption file is empty; write a caption or delete the file, "
            f"then the image is called {class_text!r}"
        )
    return Caption(text, from_folder=False)


def shuffle_caption(
    text: str, keep_tokens: int, seed: int, image_key: str, step: int, occurrence: int
) -> str:
    """The comma-separated parts in a new order, the first ``keep_tokens`` of them in place.

    The order depends on seed, image, step and occurrence alone.
    """
    parts = [part.strip() for part in text.split(",")]
    kept, rest = parts[:keep_tokens], parts[keep_tokens:]
    return ", ".join(kept + shuffled(rest, seed, "caption", image_key, step, occurrence))
