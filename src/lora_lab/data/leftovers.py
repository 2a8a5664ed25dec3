"""Files of a data folder that no run reads although somebody seems to have meant them to be."""

import logging
from dataclasses import dataclass
from pathlib import Path

from lora_lab.data.captions import CAPTION_EXTENSIONS
from lora_lab.data.concepts import IMAGE_EXTENSIONS, RESERVED, is_image
from lora_lab.data.masks import is_mask

log = logging.getLogger(__name__)

OTHER_PICTURES = {
    *(".gif", ".tif", ".tiff", ".jxl", ".jp2", ".psd", ".svg", ".ico"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"),
}
"""Pictures that aren't read: animations, drawings, and what cameras write before developing."""
NAMED = 3
"""How many files the log names."""


@dataclass(frozen=True)
class Leftover:
    """A file or folder that isn't read."""

    path: str
    """Below the folder that was looked at."""
    why: str


def find_leftovers(folder: Path, caption_extension: str) -> list[Leftover]:
    """What is not read of a folder with concepts, in the order of the names.

    Args:
        folder: Holds kohya's folders, or loose images.
        caption_extension: Of the captions that are read.
    """
    concepts = [path for path in sorted(folder.iterdir()) if _is_concept(path)]
    found = [] if concepts else _in(folder, folder, caption_extension)
    for concept in concepts:
        found += _in(concept, folder, caption_extension)
        found += [
            Leftover(
                f"{path.relative_to(folder)}/", f"{count} images in a folder within a concept's"
            )
            for path in sorted(concept.rglob("*"))
            if path.is_dir() and (count := sum(is_image(below) for below in path.iterdir()))
        ]
    if concepts:
        found += [
            Leftover(path.name, "an image beside the concepts' folders")
            for path in sorted(folder.iterdir())
            if is_image(path)
        ]
    return found


def tell_leftovers(folder: Path, caption_extension: str) -> None:
    """Warn of what is not read."""
    found = find_leftovers(folder, caption_extension)
    if found:
        log.warning(
            "%s: %d files or folders are not read: %s%s; data_report=true names all",
            folder,
            len(found),
            ", ".join(f"{left.path} ({left.why})" for left in found[:NAMED]),
            ", ..." if len(found) > NAMED else "",
        )


def _is_concept(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".") and path.name not in RESERVED


def _in(concept: Path, folder: Path, caption_extension: str) -> list[Leftover]:
    """Pictures of other formats, and captions without an image."""
    files = [path for path in sorted(concept.iterdir()) if path.is_file()]
    images = {path.stem for path in files if is_image(path)}
    others = {path.stem for path in files if path.suffix.lower() in OTHER_PICTURES}
    read = ", ".join(sorted(suffix[1:] for suffix in IMAGE_EXTENSIONS))
    captions = {*CAPTION_EXTENSIONS, caption_extension}
    found = []
    for path in files:
        name, suffix = str(path.relative_to(folder)), path.suffix.lower()
        if suffix in OTHER_PICTURES and not is_mask(path):
            found.append(Leftover(name, f"not one of {read}: save it as png"))
        elif suffix in captions and path.stem not in images | others:
            found.append(Leftover(name, "a caption without its image"))
    return found
