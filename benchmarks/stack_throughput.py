"""Images a second of stacks of K runs in one process, against one process a run.

Whole runs through Lightning, with all callbacks but the held-out loss. On a CPU the process's own
CPU time is counted, of one thread unless `trainer.threads` is given, so that what else the machine
does changes little; on a GPU wall time.
"""

import io
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.settings import steps_per_epoch, train_settings
from benchmarks.table import render_columns
from lora_lab.config import TrainConfig
from lora_lab.data.inputs import SharedInputs
from lora_lab.data.loader import PairedLoader
from lora_lab.files import atomic_path
from lora_lab.study.figures.style import LIGHT, FigureSize, drawing, panels, tidy
from lora_lab.training.stack import train_together
from lora_lab.training.stacked_run import StackedRun
from train import train

STACKS = (1, 2, 4, 6, 8)
BATCHES = (1, 3)
STEPS = 8
WARM_UP = 2
QUIET = (
    *("callbacks.progress=false", "callbacks.held_out_loss=false", "save_every=1.0"),
    "trainer.threads=1",
)
PAGE = FigureSize("page", width=6.4, columns=1, panel_height=3.3, dpi=140, font=10.0)


@dataclass(frozen=True)
class StackThroughput:
    """What stacks of a batch size take."""

    batch: int
    seconds: dict[int, list[float]]
    """Runs in the stack -> seconds of a step of all of them, a round each; 1 is a run alone."""

    def images(self, runs: int) -> list[float]:
        """Images a second of all runs of a stack, round by round."""
        return [runs * self.batch / taken for taken in self.seconds[runs]]

    def ratios(self, runs: int) -> list[float]:
        """Images a second of a stack against as many of runs alone, round by round."""
        return [
            runs * one / taken
            for one, taken in zip(self.seconds[1], self.seconds[runs], strict=True)
        ]


def measure(overrides: list[str], steps: int, rounds: int) -> list[StackThroughput]:
    """Trains stacks of each size in turn, for each batch size.

    Args:
        overrides: As for train.py.
        steps: At least how many each run takes; whole epochs are run.
        rounds: How often each stack is trained.
    """
    threads = torch.get_num_threads()
    shared = SharedInputs()
    found = [StackThroughput(batch, {runs: [] for runs in STACKS}) for batch in BATCHES]
    for _ in range(rounds):
        for one in found:
            config = train_settings([*QUIET, *overrides, f"data.batch_size={one.batch}"])
            config.epochs = -(-max(steps, WARM_UP + 2) // steps_per_epoch(config))
            for runs in STACKS:
                one.seconds[runs].append(step_seconds(config, runs, shared))
    torch.set_num_threads(threads)
    return found


def step_seconds(config: TrainConfig, runs: int, shared: SharedInputs) -> float:
    """Median seconds of a step of a stack of runs with the same settings; of a run alone with 1.

    Args:
        config: Settings of each run.
        runs: In the stack.
        shared: Keeps the base model between two calls.
    """
    stamps: list[float] = []
    names = [f"run {number}" for number in range(runs)]
    measured = threading.current_thread().name if runs == 1 else names[0]
    now = _clock(config)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(PairedLoader, "batch", stamping(PairedLoader.batch, measured, stamps, now)),
    ):
        if runs == 1:
            train(deepcopy(config), Path(folder), shared)
        else:
            jobs = [partial(_train, config, Path(folder) / name, shared) for name in names]
            train_together(jobs, names)
    taken = [after - before for before, after in pairwise(stamps)]
    return statistics.median(taken[WARM_UP:])


def _train(config: TrainConfig, folder: Path, shared: SharedInputs, stacked: StackedRun) -> None:
    train(deepcopy(config), folder, shared, stacked=stacked)


def stamping(
    deliver: Callable[..., Any], thread: str, stamps: list[float], now: Callable[[], float]
) -> Callable[..., Any]:
    """Wraps the loader's ``batch`` so that each call of one run notes the time.

    All runs of a stack take a step between two steps of one of them.

    Args:
        deliver: The loader's ``batch``.
        thread: Name of the run's thread.
        stamps: Gets the times.
        now: Tells them.
    """

    def batch(*arguments: Any) -> Any:
        if threading.current_thread().name == thread:
            stamps.append(now())
        return deliver(*arguments)

    return batch


def _clock(config: TrainConfig) -> Callable[[], float]:
    """CPU time of the process; wall time where a GPU trains."""
    if config.trainer.accelerator == "cpu" or not torch.cuda.is_available():
        return time.process_time

    def waited() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return waited


def render_stacks(found: list[StackThroughput]) -> str:
    """The measurements as a table."""
    rows = []
    for one in found:
        rows.append(
            (
                f"batch {one.batch}: ms a step of all runs",
                [[1000 * taken for taken in one.seconds[runs]] for runs in STACKS],
            )
        )
        rows.append(("... images/s", [one.images(runs) for runs in STACKS]))
        rows.append(("... against a process a run", [one.ratios(runs) for runs in STACKS]))
    return render_columns("stacks of K runs", [f"K = {runs}" for runs in STACKS], rows)


def draw_stacks(found: list[StackThroughput], path: Path) -> None:
    """Draws images a second over K, against one process a run: medians, lowest to highest.

    Args:
        found: The measurements.
        path: A WebP file.
    """
    with drawing(LIGHT, PAGE):
        canvas, (axes,) = panels(PAGE, 1, margin=0.9)
        for place, one in enumerate(found):
            middle = [statistics.median(one.ratios(runs)) for runs in STACKS]
            low, high = ([end(one.ratios(runs)) for runs in STACKS] for end in (min, max))
            color = LIGHT.series[place]
            axes.plot(STACKS, middle, marker="o", color=color, linewidth=2.2)
            axes.fill_between(STACKS, low, high, color=color, alpha=0.2, linewidth=0)
            axes.annotate(
                f"batch {one.batch}",
                (STACKS[-1], middle[-1]),
                xytext=(10, 0),
                textcoords="offset points",
                va="center",
                color=color,
            )
        axes.axhline(1, color=LIGHT.ink, linestyle="--", linewidth=1)
        axes.set_ylim(bottom=0)
        axes.set_xticks(STACKS)
        title = "Images a second, against one process a run"
        tidy(axes, LIGHT, title, "runs in a stack (K)")
        file = io.BytesIO()
        canvas.savefig(file, format="webp")
    with atomic_path(path) as temporary:
        temporary.write_bytes(file.getvalue())
