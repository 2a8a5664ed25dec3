"""A command that is timed while the memory of all its processes is watched."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

POLL_SECONDS = 0.5
LINES_TOLD = 5


class CommandCost(NamedTuple):
    """What a command took."""

    began: float
    """Unix time in seconds."""
    seconds: float
    """From its start to its end."""
    peak_bytes: int
    """Most memory that it and the processes that it started held at once."""


def run_watched(command: Sequence[str], folder: Path) -> CommandCost:
    """Run a command to its end.

    Memory is looked at twice a second; a peak between two looks is missed.

    Args:
        command: Program and arguments.
        folder: Where it runs.

    Raises:
        RuntimeError: It failed; holds the last lines of what it said.
    """
    peak = 0
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        began, start = time.time(), time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=said)
        try:
            while process.poll() is None:
                peak = max(peak, held_bytes(process.pid))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_SECONDS)
            seconds = time.perf_counter() - start
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            said.seek(0)
            last = "\n".join(said.read().splitlines()[-LINES_TOLD:])
            raise RuntimeError(f"{' '.join(command)} failed:\n{last}")
    return CommandCost(began, seconds, peak)


def held_bytes(pid: int) -> int:
    """Bytes that a process and all that it started hold; what they share counts once on Linux."""
    total = 0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.Error):
                memory = one.memory_full_info()
                total += memory.pss if sys.platform == "linux" else memory.uss
    return total
