"""Calls the commands as the shell does, in this process."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from lora_lab.cli.entry import run_command
from settings import CONF


@dataclass(frozen=True)
class CommandResult:
    """What a command gave back."""

    status: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines that begin with ``error:``, without it."""
        lines = self.err.splitlines()
        return [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]


def never(config: DictConfig) -> Any:
    """A task that must not be reached."""
    pytest.fail("the task was started")


def call(
    *arguments: str, task: Callable[[DictConfig], Any] = never, command: str = "train"
) -> CommandResult:
    """Run a command and catch what it says."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run_command(task, command, CONF, list(arguments))
    return CommandResult(status, out.getvalue(), err.getvalue())


def tiny_arguments(base: Path, person: Path) -> list[str]:
    """A run of 4 steps on the tiny model, with grids of 2 sampling steps."""
    return [
        f"model.checkpoint={base}",
        f"data.dir={person}",
        "data.resolution=32",
        "network.dim=4",
        "epochs=1",
        "save_every=0.5",
        "trainer.threads=1",
        "callbacks.progress=false",
        f"sampling.checkpoints=['{base}']",
        "sampling.width=32",
        "sampling.height=32",
        "sampling.steps=2",
        "study.seeds=2",
        "metrics.enabled=false",
    ]
