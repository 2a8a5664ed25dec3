"""Where the things that ship with the project are: the embedded models and the embedded person."""

import re
from pathlib import Path

from lora_lab.errors import LabError, clipped, offered, one_line

PREFIX = "embedded:"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILE_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_POCKET = Path(__file__).parents[1] / "pocket"


def _embedded() -> dict[str, Path]:
    """Return the embedded names and their folders, as far as they are there."""
    models = _POCKET / "models"
    found = {path.name: path for path in sorted(models.glob("*")) if path.is_dir()}
    person = _POCKET / "person"
    if person.is_dir():
        found["person"] = person
    return found


def is_hub_name(location: str) -> bool:
    """Whether a location can only be a repository on a model hub: ``owner/name``, and no path."""
    if not _HUB_NAME.fullmatch(location) or Path(location).suffix in _FILE_SUFFIXES:
        return False
    return not Path(location).exists() and not Path(location).parent.exists()


def locate(location: str) -> Path:
    """Return the path of ``location``: ``embedded:<name>``, or a path of the file system.

    Args:
        location: ``embedded:pocket`` and its siblings (diffusers folders), ``embedded:person`` (a
            data set), or the path of any file or folder; ``~`` is the home folder.

    Raises:
        LabError: Nothing is there.
    """
    if location.startswith(PREFIX):
        embedded = _embedded()
        name = location.removeprefix(PREFIX)
        if name not in embedded:
            known = offered(location, [PREFIX + key for key in embedded])
            raise LabError(f"{clipped(location)} does not ship with the project; it ships {known}")
        return embedded[name]
    path = Path(location).expanduser()
    try:
        there = bool(location) and path.exists()
    except OSError as error:
        raise LabError(
            f"{one_line(location, 300)} cannot be opened ({error.strerror}); check the path"
        ) from error
    if not there:
        raise LabError(
            f"{one_line(location or 'an empty path', 300)} does not exist; check the path"
        )
    return path
