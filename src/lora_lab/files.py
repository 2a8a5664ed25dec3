"""Files: written so that nothing half-written looks whole, and read within bounds.

A run folder may come from somebody else. Only regular files are read (a FIFO would wait without
end), no more bytes than a file of its kind can have, and no YAML that grows while it is read.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

import yaml

from lora_lab.errors import LabError

MAX_TEXT_BYTES = 2**28
"""Tables of numbers: a line has some hundred bytes, a long run 20,000 of them."""
MAX_JSON_BYTES = 2**24
"""Records and scores: some kilobytes."""
MAX_YAML_BYTES = 2**20
"""Settings: some kilobytes."""
MAX_DEPTH = 50
"""Mappings and lists inside one another; settings have five."""
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast
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
    """Return the one-line error for a file or folder that could not be written.

    Args:
        path: What should have been written.
        error: What the system answered.
    """
    reason = error.strerror or str(error)
    next_step = _NEXT_STEP.get(error.errno or 0, "check the folder and start again")
    return LabError(f"{path} could not be written ({reason}); {next_step}")


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path`` that takes its name on success.

    The file is flushed to disk and renamed when the block ends, and removed when the block fails:
    a reader sees the whole file or none. Missing parent folders are made.

    Args:
        path: The final name of the file.

    Yields:
        The path to write to, ``.<name>.<random>.tmp``.

    Raises:
        LabError: The folder or the file can't be written.
    """
    final = Path(path)
    temporary = final.with_name(f".{final.name}.{secrets.token_hex(4)}.tmp")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        flush(temporary)
        os.replace(temporary, final)
        with suppress(OSError):  # some file systems have no such thing for folders
            flush(final.parent)  # without it a power cut can take the new name back
    except OSError as error:
        raise write_error(final, error) from error
    finally:
        _remove(temporary)


def flush(path: Path) -> None:
    """Have the system write a file or a folder to disk now.

    Raises:
        OSError: It is not there, or the disk is full.
    """
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
    """Remove what a killed process left half-written in a folder that nobody else writes to."""
    for path in folder.glob(".*.tmp"):
        if re.fullmatch(r"\..+\.[0-9a-f]{8}\.tmp", path.name):
            _remove(path)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder with its parents and return it.

    Raises:
        LabError: The folder can't be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    return folder


def write_text(path: str | os.PathLike[str], text: str) -> None:
    r"""Write ``text`` as UTF-8 with Unix line ends, whole or not at all.

    What stands for a byte of a file name that is not UTF-8 becomes ``\udc80`` to ``\udcff``, as in
    JSON.

    Raises:
        LabError: The file can't be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write ``obj`` as indented JSON (no NaN or infinity), whole or not at all.

    Raises:
        LabError: The file can't be written.
    """
    write_text(path, json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file for reading; a FIFO, a device or a folder is refused at once.

    Raises:
        OSError: It can't be read, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file")
    return os.fdopen(descriptor, "rb")


def require_regular(path: str | os.PathLike[str]) -> None:
    """Refuse what a library that opens paths by itself must not open.

    Raises:
        OSError: It can't be read, or is no regular file.
    """
    open_regular(path).close()


def read_bytes(path: str | os.PathLike[str], limit: int) -> bytes:
    """Read a regular file of at most ``limit`` bytes.

    Raises:
        OSError: It can't be read, is no regular file, or is larger.
    """
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it is larger than {limit} bytes")
    return content


def read_text(
    path: str | os.PathLike[str],
    limit: int = MAX_TEXT_BYTES,
    encoding: str = "utf-8",
    errors: str = "strict",
) -> str:
    """Read a regular text file of at most ``limit`` bytes.

    Raises:
        OSError: It can't be read, is no regular file, or is larger.
        UnicodeDecodeError: It is not text.
    """
    return read_bytes(path, limit).decode(encoding, errors)


def read_json(path: str | os.PathLike[str], limit: int = MAX_JSON_BYTES) -> Any:
    """Read a regular JSON file of at most ``limit`` bytes.

    Raises:
        OSError: It can't be read, is no regular file, or is larger.
        ValueError: It is not complete JSON, or is nested too deeply.
    """
    return parse_json(read_text(path, limit))


def parse_json(text: str) -> Any:
    """Read a text of somebody else's as JSON.

    Raises:
        ValueError: It is not complete JSON, or is nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_yaml(path: str | os.PathLike[str], limit: int = MAX_YAML_BYTES) -> Any:
    """Read a regular YAML file of at most ``limit`` bytes, without aliases.

    Its events are counted before anything is built: 100,000 opening brackets would end the process,
    and a few aliases can stand for more values than any memory holds.

    Raises:
        OSError: It can't be read, is no regular file, or is larger.
        ValueError: It is not YAML, is nested too deeply, or has an alias.
    """
    text = read_text(path, limit)
    try:
        _refuse_growth(text)
        return yaml.load(text, Loader=_YAML_LOADER)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"it is not YAML ({' '.join(str(error).split())[:200]})") from error


def _refuse_growth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_YAML_LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it has the alias *{event.anchor}: write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits.

    Raises:
        LabError: The file can't be read.
    """
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = error.strerror or str(error)
        raise LabError(f"{path} could not be read ({reason}); check the path") from error
