"""The real pictures of the subject that were not trained on, as the base's settings name them."""

from collections.abc import Mapping
from pathlib import Path

from lora_lab.checkpoint.embedded import locate
from lora_lab.errors import LabError

HELD_OUT = "held_out"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif"})
MASK = ".mask"


def real_pictures(config: Mapping[str, str]) -> list[Path]:
    """Find the held-out images of a run, without reading them.

    Args:
        config: Flat settings of the run: data.held_out_dir, data.dir.

    Returns:
        Their files by name; empty where there are none, or their folder is gone.
    """
    named, root = config.get("data.held_out_dir", "null"), config.get("data.dir", "")
    try:
        folder = locate(named) if named != "null" else locate(root) / HELD_OUT
    except LabError:
        return []
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and not path.stem.endswith(MASK)
        and path.is_file()
    )
