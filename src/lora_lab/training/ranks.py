"""Several devices that train one LoRA together: a process each, this one being the first.

Lightning's own launcher for scripts begins the whole command again, and so a whole sweep; the one
for functions sends model and callbacks through pickle and trains in children alone. So the first
process stays what it is and starts the others (`SharedStep`), each of which loads the inputs for
itself and writes no file.
"""

import logging
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

import lightning.pytorch as pl
import torch.distributed
from lightning.pytorch.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers.launcher import _Launcher

from lora_lab.errors import LabError

READY = "ready"
SECONDS_FOR_THE_CAUSE = 10.0


@dataclass(frozen=True)
class Rank:
    """One of the processes of a run."""

    index: int
    """From 0; 0 writes the files."""
    count: int
    port: int
    """Where rank 0 listens."""


ALONE = Rank(0, 1, 0)


class OurRanks(ClusterEnvironment):
    """Tells Lightning which process it is in; also keeps it from asking slurm.

    Args:
        rank: The process.
    """

    def __init__(self, rank: Rank) -> None:
        super().__init__()
        self.rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        """True: Lightning starts none."""
        return True

    @property
    def main_address(self) -> str:
        """All ranks are on one machine."""
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        """Where rank 0 listens."""
        return self.rank.port

    @staticmethod
    def detect() -> bool:
        """Never found by itself: it is passed."""
        return False

    def world_size(self) -> int:
        """How many ranks there are."""
        return self.rank.count

    def set_world_size(self, size: int) -> None:
        """It is known already."""

    def global_rank(self) -> int:
        """Which one this is."""
        return self.rank.index

    def set_global_rank(self, rank: int) -> None:
        """It is known already."""

    def local_rank(self) -> int:
        """The same, on one machine."""
        return self.rank.index

    def node_rank(self) -> int:
        """There is one machine."""
        return 0


class SharedStep(DDPStrategy):
    """Each device takes its share of every batch, and all of them step together.

    Over NCCL on GPUs, over Gloo on CPUs.

    Args:
        rank: This process; the first one starts the others.
        work: What each of the others does, see `other_ranks`; None in one of them.
        arguments: For ``work``.
    """

    def __init__(self, rank: Rank, work: Callable[..., None] | None, *arguments: Any) -> None:
        super().__init__()
        self.rank = rank
        self.work = work
        self.arguments = arguments

    def _configure_launcher(self) -> None:
        if self.work is not None:
            self._launcher = RanksLauncher(self.rank, self.work, *self.arguments)


class RanksLauncher(_Launcher):
    """Lets the first process train while the others, which it starts, train beside it.

    Args:
        rank: The first process.
        work: What each of the others does, see `other_ranks`.
        arguments: For ``work``.
    """

    def __init__(self, rank: Rank, work: Callable[..., None], *arguments: Any) -> None:
        self.rank = rank
        self.work = work
        self.arguments = arguments

    @property
    def is_interactive_compatible(self) -> bool:
        """No: the others import the module that the command began with."""
        return False

    def launch(
        self, function: Callable[..., Any], *args: Any, trainer: pl.Trainer, **kwargs: Any
    ) -> Any:
        """Run Lightning's part of the first process, the others beside it.

        Raises:
            LabError: Another rank failed; its cause is told.
        """
        with other_ranks(self.rank, self.work, *self.arguments):
            return function(*args, **kwargs)

    def kill(self, signum: Any) -> None:
        """Nothing: `other_ranks` ends what it has started."""


def first_rank(count: int) -> Rank:
    """This process as the first of ``count``, with a free port to listen on."""
    if count == 1:
        return ALONE
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Rank(0, count, int(probe.getsockname()[1]))


@contextmanager
def other_ranks(first: Rank, work: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Start the other ranks, run the block beside them, and end them.

    Args:
        first: This process.
        work: What each of the others does: a function of a module, called with its rank, a
            function to call when it is ready to train, and the arguments.
        arguments: For ``work``; they are pickled.

    Raises:
        LabError: Another rank failed; its cause is told.
    """
    if first.count == 1:
        yield
        return
    ends: list[Connection] = []
    processes: list[SpawnProcess] = []
    try:
        for index in range(1, first.count):
            process, end = _start(Rank(index, first.count, first.port), work, arguments)
            ends.append(end)
            processes.append(process)
        _await_all(ends)
        yield
        _await_all(ends)
    except Exception as error:
        cause = None if isinstance(error, LabError) else _cause(ends)
        if cause is not None:
            raise cause from error
        raise
    finally:
        for process in processes:
            process.kill()
            process.join()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _start(
    rank: Rank, work: Callable[..., None], arguments: tuple[Any, ...]
) -> tuple[SpawnProcess, Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(rank, theirs, work, arguments))
    process.start()
    theirs.close()
    return process, ours


def _await_all(ends: list[Connection]) -> None:
    for index, end in enumerate(ends, start=1):
        _refuse(index, _said(end))


def _said(end: Connection) -> str:
    try:
        return str(end.recv())
    except EOFError:
        return "its process ended without a word: it was killed or could not start"


def _refuse(index: int, text: str) -> None:
    if text != READY:
        raise LabError(f"device {index}: {text}")


def _cause(ends: list[Connection]) -> LabError | None:
    """What another rank says of its failure; None when all of them are well."""
    for index, end in enumerate(ends, start=1):
        if end.poll(SECONDS_FOR_THE_CAUSE) and (text := _said(end)) != READY:
            return LabError(f"device {index}: {text}")
    return None


def _run(
    rank: Rank, end: Connection, work: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    """What another rank's process does: its work, then one word on how it ended."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the first rank decides, and ends the others
    threading.Thread(target=_end_with_the_first_rank, daemon=True).start()
    logging.basicConfig(level=logging.ERROR)
    try:
        work(rank, lambda: end.send(READY), *arguments)
        end.send(READY)
    except BaseException as error:
        text = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        end.send(" ".join(text.split()))
        raise SystemExit(1) from error


def _end_with_the_first_rank() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
