"""Locks on folders, so that two processes never write into one at once.

The system itself ends a lock with the process that holds it, so what a killed process leaves behind
blocks nobody. Beside the lock stands who holds it, for the message that the other one shows.
"""

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from lora_lab.errors import LabError
from lora_lab.files import make_folder, read_json, write_error

log = logging.getLogger(__name__)

LOCK = ".lock"
"""Lock of a run folder or a sweep folder."""
GRIDS_LOCK = ".grids.lock"
"""Lock of the images and grids of a run or a sweep, which another command may draw, too."""


class Locked(LabError):
    """Another process holds the lock."""


@contextmanager
def hold(path: Path, next_step: str) -> Iterator[None]:
    """Hold a lock for the block; refuse at once when another process has it.

    Args:
        path: The lock's file, which stays; its folder is made.
        next_step: What the message advises.

    Raises:
        Locked: Another process holds it: its number and machine are named.
        LabError: The file can't be made.
    """
    lock = FileLock(path)
    if not _acquired(lock, path, timeout=0.0):
        raise Locked(f"{path.parent} is in use by {holder(path)}; {next_step}")
    with _signed(lock, path):
        yield


@contextmanager
def wait_for(path: Path, what: str) -> Iterator[bool]:
    """Hold a lock for the block; wait, and say so once, while another process has it.

    Args:
        path: The lock's file, which stays; its folder is made.
        what: What is waited for, in the log line: ``waiting for <what>, in use by ...``.

    Yields:
        Whether another process had it first, so that its work may be there now.

    Raises:
        LabError: The file can't be made.
    """
    lock = FileLock(path)
    at_once = _acquired(lock, path, timeout=0.0)
    if not at_once:
        log.info("waiting for %s, in use by %s", what, holder(path))
        _acquired(lock, path, timeout=-1.0)
    with _signed(lock, path):
        yield not at_once


def _acquired(lock: BaseFileLock, path: Path, timeout: float) -> bool:
    """Whether the lock is ours now; a negative timeout in seconds waits without end."""
    make_folder(path.parent)
    try:
        lock.acquire(timeout=timeout, poll_interval=0.2)
    except Timeout:
        return False
    except OSError as error:
        raise write_error(path, error) from error
    return True


@contextmanager
def _signed(lock: BaseFileLock, path: Path) -> Iterator[None]:
    """Write down who holds a lock, and free it after the block."""
    try:
        _sign(path)
        yield
    finally:
        with suppress(OSError):
            os.truncate(path, 0)  # unless the file was removed
        lock.release()


def _sign(path: Path) -> None:
    """Write down who holds the lock; the lock itself doesn't depend on it."""
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}
    with suppress(OSError):
        path.write_text(json.dumps(facts), encoding="utf-8")


def holder(path: Path) -> str:
    """Who holds a lock, in words: ``process 4711 on gpu-1 since 2026-01-31 12:00``."""
    try:
        facts = read_json(path)
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(facts["since"]))
        return f"process {int(facts['pid'])} on {facts['host']} since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
