"""Writing files so that nothing half-written ever looks whole."""

import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lora_lab.errors import LabError

_NEXT_STEP = {
    errno.ENOSPC: "free some space on this disk and start again",
    errno.EDQUOT: "free some of your disk quota and start again",
    errno.EROFS: "choose a folder on a disk that can be written",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "choose another folder: a part of this path is a file",
    errno.EEXIST: "choose another folder: a part of this path is a file",
    errno.EISDIR: "choose another name: this is a folder",
}


def write_error(path: str | os.PathLike[str], error: OSError) -> LabError:
    """Returns the one-line error for a file or folder that could not be written.

    Args:
        path: what should have been written.
        error: what the system answered.
    """
    reason = error.strerror or str(error)
    next_step = _NEXT_STEP.get(error.errno or 0, "check the folder and start again")
    return LabError(f"{path} could not be written ({reason}); {next_step}")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path in the folder of ``path`` that takes its name on success.

    The file is flushed to disk and renamed when the block ends, and removed when the block fails:
    a reader sees the whole file or none. Missing parent folders are made.

    Args:
        path: the final name of the file.

    Yields:
        The path to write to, ``.<name>.<random>.tmp``.

    Raises:
        LabError: the folder or the file can't be written.
    """
    final = Path(path)
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, final)
    except OSError as error:
        raise write_error(final, error) from error
    finally:
        _remove(temporary)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        # The folder itself is gone or unreadable: the error that led here says more.
        return


def remove_leftovers(folder: Path) -> None:
    """Removes what a killed process left half-written in a folder that nobody else writes to."""
    for path in folder.glob(".*.tmp"):
        if re.fullmatch(r"\..+\.[0-9a-f]{8}\.tmp", path.name):
            _remove(path)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Makes a folder with its parents and returns it.

    Raises:
        LabError: the folder can't be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    return folder


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes ``text`` as UTF-8 with Unix line ends, whole or not at all.

    Raises:
        LabError: the file can't be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Writes ``obj`` as indented JSON (no NaN or infinity), whole or not at all.

    Raises:
        LabError: the file can't be written.
    """
    write_text(path, json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a file's bytes as 64 hex digits.

    Raises:
        LabError: the file can't be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = error.strerror or str(error)
        raise LabError(f"{path} could not be read ({reason}); check the path") from error
