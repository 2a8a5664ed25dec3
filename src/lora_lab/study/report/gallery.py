"""All pictures of a report, inside the bytes that a page may have."""

from dataclasses import dataclass
from pathlib import Path

from lora_lab.study.judge.verdict import Study
from lora_lab.study.report.explorer import Explorer, load_explorer
from lora_lab.study.report.grids import GridGroup, load_grids

GRID_SHARE = 5
"""The whole grids take one of so many parts of what is left for pictures."""
MAX_NAMED = 5
"""So many files that can't be read are named one by one."""


@dataclass(frozen=True)
class Gallery:
    """All pictures that were drawn with the LoRAs."""

    grids: list[GridGroup]
    notes: list[str]
    """What is missing or can't be read, one sentence each."""
    explorer: Explorer | None


def load_gallery(study: Study, folder: Path, budget: int) -> Gallery:
    """Makes the thumbnails of a page.

    Args:
        study: the judged sweep.
        folder: the report folder.
        budget: bytes that all of them may take.
    """
    grids, notes = load_grids(study, folder, budget // GRID_SHARE)
    explorer = load_explorer(study, folder, budget - budget // GRID_SHARE)
    if explorer is not None and explorer.left_out:
        notes.append(
            f"{explorer.left_out} of {explorer.count} images have no thumbnail, so that this page "
            "stays small: their cells link to the files."
        )
    for name in explorer.unreadable[:MAX_NAMED] if explorer else ():
        notes.append(f"{name} can’t be read as a picture.")
    return Gallery(grids, notes, explorer)
