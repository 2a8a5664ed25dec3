"""The concepts of a folder: which images belong together, how often they are shown and their class.

A concept is a folder named ``<repeats>_<trigger> <class>``, or all loose images of a folder.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from lora_lab.data.captions import folder_meaning
from lora_lab.data.masks import FOLDER as MASKS
from lora_lab.data.masks import is_mask
from lora_lab.data.metadata_jsonl import NAME, read_metadata
from lora_lab.errors import LabError

log = logging.getLogger(__name__)

IMAGE_EXTENSIONS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif", ".heic", ".heif"}
RESERVED = ("train", "held_out", "reg", MASKS)
"""Folders of a data folder that are no concepts."""


@dataclass(frozen=True)
class Concept:
    """Images that share repeats and class."""

    repeats: int
    class_text: str
    """What an image without a caption is called."""
    images: list[Path]
    listed: dict[Path, str]
    """Captions from metadata.jsonl."""


def is_image(path: Path) -> bool:
    """Whether a file is an image to train on, by its name."""
    return (
        path.suffix.lower() in IMAGE_EXTENSIONS
        and not path.name.startswith(".")
        and not is_mask(path)
        and path.is_file()
    )


def find_concepts(folder: Path) -> list[Concept]:
    """The concepts of a folder, in the order of their names.

    Raises:
        LabError: A folder has no number in its name, or metadata.jsonl is wrong.
    """
    listed = read_metadata(folder)
    subfolders = sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith(".") and path.name not in RESERVED
    )
    concepts = [_numbered(path, listed) for path in subfolders]
    loose = _images(folder)
    if loose and not any(concept.images for concept in concepts):
        name = folder.parent.name if folder.name in RESERVED else folder.name
        log.info(
            "%s: %d loose images are read as one concept called %r, shown once an epoch; "
            "data.repeats changes that",
            *(folder, len(loose), name),
        )
        concepts = [Concept(1, name, loose, listed)]
    elif loose:
        log.warning(
            "%s: %d images lie beside the concept folders and are not used (such as %s); "
            "move them into a folder named <repeats>_<trigger> <class>",
            *(folder, len(loose), loose[0].name),
        )
    _refuse_out_of_reach(listed, concepts, folder)
    return concepts


def _numbered(folder: Path, listed_above: dict[Path, str]) -> Concept:
    listed = listed_above | read_metadata(folder)
    images = _images(folder)
    if not folder.name[:1].isdigit() and images and all(path in listed for path in images):
        return Concept(1, folder.name, images, listed)  # imagefolder: names mean nothing
    repeats, class_text = folder_meaning(folder)
    return Concept(repeats, class_text, images, listed)


def _images(folder: Path) -> list[Path]:
    images = sorted(path for path in folder.iterdir() if is_image(path))
    for path in images:
        _refuse_bytes(path)
    return images


def _refuse_bytes(path: Path) -> None:
    """Refuse a name that is no text: it stands in fingerprints, tables and seeds.

    Raises:
        LabError: Says which.
    """
    try:
        f"{path.parent.name}/{path.name}".encode()
    except UnicodeEncodeError:
        raise LabError(
            f"{path}: the name of this image or of its folder is not UTF-8; rename it"
        ) from None


def _refuse_out_of_reach(listed: dict[Path, str], concepts: list[Concept], folder: Path) -> None:
    reached = {path for concept in concepts for path in concept.images}
    lost = [path for path in listed if path not in reached]
    if lost:
        raise LabError(
            f"{folder / NAME} names {lost[0]}, which is not read ({len(lost)} in all): images must "
            "lie beside it or in a folder beside it"
        )
