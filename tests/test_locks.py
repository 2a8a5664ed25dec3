"""One process at a time; the other one says who, or waits; the dead block nobody."""

import logging
import multiprocessing
import os
import signal
import socket
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from lora_lab.run_folder.locks import Locked, hold, holder, wait_for

FORK = multiprocessing.get_context("fork")


def _hold_it(path: Path, end: Connection) -> None:
    with hold(path, "wait"):
        end.send("held")
        end.poll(30)


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock, and what lets it go."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=_hold_it, args=(tmp_path / ".lock", theirs))
    process.start()
    assert ours.poll(30) and ours.recv() == "held"
    yield process, ours
    process.kill()
    process.join(30)


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
    process.join(30)
    with hold(tmp_path / ".lock", "wait"):
        assert holder(tmp_path / ".lock").startswith(f"process {os.getpid()} on")


def test_who_waits_says_so_and_goes_on_when_the_other_ends(tmp_path, other, caplog):
    process, leave = other
    caplog.set_level(logging.INFO)
    leave.send("leave")
    with wait_for(tmp_path / ".lock", "the grids") as waited:
        process.join(30)
    if waited:  # the other may have left before we came
        # It may also leave between our attempt and our look at who holds the lock.
        who = (f"process {process.pid}", "another process")
        assert any(f"waiting for the grids, in use by {one}" in caplog.text for one in who)


def test_a_lock_is_free_again_after_an_error(tmp_path):
    with pytest.raises(ValueError), hold(tmp_path / ".lock", "wait"):
        raise ValueError
    with wait_for(tmp_path / ".lock", "it") as waited:
        assert not waited
    assert holder(tmp_path / ".lock") == "another process"
