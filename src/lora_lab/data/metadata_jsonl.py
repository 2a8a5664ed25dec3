"""Captions from ``metadata.jsonl``, as Hugging Face's imagefolder has it.

One JSON object a line: ``{"file_name": "a.png", "text": "a caption"}``; ``file_name`` is relative
to the folder of the file. Other keys are left alone.
"""

from pathlib import Path, PurePosixPath
from typing import Any

from lora_lab.errors import LabError
from lora_lab.files import parse_json, read_text

NAME = "metadata.jsonl"


def read_metadata(folder: Path) -> dict[Path, str]:
    """Captions by image path.

    Args:
        folder: Where metadata.jsonl may lie; an empty answer if it doesn't.

    Raises:
        LabError: A line isn't an object with file_name and text, names an image twice, outside of
            the folder, or one that is missing.
    """
    path = folder / NAME
    if not path.is_file():
        return {}
    try:
        lines = read_text(path, encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"{path} can't be read ({error}); save it as UTF-8") from error
    captions: dict[Path, str] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            image, text = _entry(line, folder, f"{path}, line {number}")
            if image in captions:
                raise LabError(f"{path}, line {number}: {image.name} is named twice; remove one")
            captions[image] = text
    return captions


def _entry(line: str, folder: Path, where: str) -> tuple[Path, str]:
    try:
        entry: Any = parse_json(line)
    except ValueError as error:
        raise LabError(f"{where} is not JSON ({error}); write one object a line") from error
    if not isinstance(entry, dict):
        raise LabError(f'{where} must be an object like {{"file_name": ..., "text": ...}}')
    for key in ("file_name", "text"):
        value = entry.get(key)
        if not isinstance(value, str) or not value.strip():
            raise LabError(f"{where}: {key} must be text that is not empty, got {value!r}")
    name = PurePosixPath(entry["file_name"])
    if name.is_absolute() or ".." in name.parts or "\\" in entry["file_name"]:
        raise LabError(f"{where}: file_name must lie in {folder}, got {entry['file_name']!r}")
    image = folder / name
    if not image.is_file():
        raise LabError(f"{where}: {entry['file_name']!r} is missing; remove the line or add it")
    return image, " ".join(entry["text"].split())
