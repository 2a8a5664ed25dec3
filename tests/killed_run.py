"""A training run in a process of its own that is killed at a chosen point, really."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lora_lab.config import TrainConfig
from lora_lab.data.inputs import SharedInputs
from lora_lab.training.callbacks import MetricsCSV
from train import train

FORK = multiprocessing.get_context("fork")


def die() -> None:
    """As the kernel's out-of-memory killer does it: nothing is tidied up."""
    os.kill(os.getpid(), signal.SIGKILL)


def before_the_file(name: str) -> None:
    """Die when a file is written, but doesn't have its name yet."""
    replace = os.replace

    def dying(source: Any, target: Any) -> None:
        if Path(target).name == name:
            die()
        replace(source, target)

    os.replace = dying  # type: ignore[assignment]


def after_the_row(step: int) -> None:
    """Die when a step's row is in metrics.csv and nothing else of it is saved."""
    write = MetricsCSV._write

    def dying(self: MetricsCSV, row: dict[str, float]) -> None:
        write(self, row)
        if row["step"] == step:
            die()

    MetricsCSV._write = dying  # type: ignore[method-assign]


def signal_at(step: int, number: int) -> None:
    """Receive a signal in the middle of a step."""
    write = MetricsCSV._write

    def signalled(self: MetricsCSV, row: dict[str, float]) -> None:
        write(self, row)
        if row["step"] == step:
            os.kill(os.getpid(), number)

    MetricsCSV._write = signalled  # type: ignore[method-assign]


def _run(
    point: Callable[..., None],
    arguments: tuple[Any, ...],
    config: TrainConfig,
    folder: Path,
    shared: SharedInputs,
) -> None:
    torch.set_num_threads(1)
    point(*arguments)
    train(config, folder, shared)


def run_until(
    point: Callable[..., None],
    *arguments: Any,
    config: TrainConfig,
    folder: Path,
    shared: SharedInputs,
) -> int:
    """Train in another process up to a point; returns its exit code, negative for a signal."""
    work = (point, arguments, config, folder, shared)
    process = FORK.Process(target=_run, args=work)
    process.start()
    process.join(240)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode
