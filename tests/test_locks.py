"""One process at a time; the other one says who, or waits; the dead block nobody."""

import logging
import multiprocessing
import os
import signal
import socket
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Timer

import pytest

from lora_lab.run_folder import locks
from lora_lab.run_folder.locks import Locked, hold, holder, wait_for

FORK = multiprocessing.get_context("fork")


def _hold_it(path: Path, end: Connection) -> None:
    with hold(path, "wait"):
        end.send("held")
        end.recv()


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock until it is told to leave, and what tells it."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=_hold_it, args=(tmp_path / ".lock", theirs))
    process.start()
    theirs.close()  # so that a process that fails is an end of file here, and no wait
    assert ours.recv() == "held"
    yield process, ours
    process.kill()
    process.join()


def test_the_second_process_is_told_who_holds_the_folder(tmp_path, other):
    process, _ = other
    with (
        pytest.raises(Locked, match=f"process {process.pid} on {socket.gethostname()} since 20"),
        hold(tmp_path / ".lock", "choose another hydra.run.dir"),
    ):
        pytest.fail("both hold it")


def test_a_killed_process_leaves_no_lock(tmp_path, other):
    process, _ = other
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with hold(tmp_path / ".lock", "wait"):
        assert holder(tmp_path / ".lock").startswith(f"process {os.getpid()} on")


class Leave(logging.Handler):
    """Lets the other process go when a line is logged: it holds the lock until we wait for it."""

    def __init__(self, end: Connection) -> None:
        super().__init__()
        self.end = end
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.end.send("leave")


def test_who_waits_says_so_and_goes_on_when_the_other_ends(tmp_path, other):
    process, end = other
    leave = Leave(end)
    locks.log.addHandler(leave)
    locks.log.setLevel(logging.INFO)
    late = Timer(60, end.send, ("leave",))  # ends the wait where nothing is said
    late.start()
    try:
        with wait_for(tmp_path / ".lock", "the grids") as waited:
            assert waited and holder(tmp_path / ".lock").startswith(f"process {os.getpid()} on")
    finally:
        late.cancel()
        locks.log.removeHandler(leave)
        locks.log.setLevel(logging.NOTSET)
    (line,) = leave.lines
    assert line.startswith(f"waiting for the grids, in use by process {process.pid} on")


def test_a_lock_is_free_again_after_an_error(tmp_path):
    with pytest.raises(ValueError), hold(tmp_path / ".lock", "wait"):
        raise ValueError
    with wait_for(tmp_path / ".lock", "it") as waited:
        assert not waited
    assert holder(tmp_path / ".lock") == "another process"
