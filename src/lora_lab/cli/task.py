"""What stands around a task: how a run ended, as a value, so that a job of a sweep never raises."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lora_lab.cli.ending import HEARD, unforeseen
from lora_lab.errors import ConfigError, LabError
from lora_lab.run_folder.record import run_name

if TYPE_CHECKING:
    from lora_lab.data.inputs import SharedInputs
    from lora_lab.training.stacked_run import StackedRun

log = logging.getLogger(__name__)

_thread = threading.local()


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    folder: str
    """The run folder."""
    error: str | None = None
    """Why it failed, in one line; None: it is complete."""
    refused: bool = False
    """Whether it failed before anything was started."""
    leaves: str = "lora/, metrics.csv, config.yaml and run.json"
    """What the command has left in the folder, for its last line."""


def task_wrapper(task: Callable[[DictConfig], str | None]) -> Callable[[DictConfig], Outcome]:
    """Turn what a task raises into one line of its outcome, so that other jobs go on.

    Args:
        task: Works in the folder that Hydra made; returns what it has left there, None for a run.

    Returns:
        The task that never raises, but for Ctrl-C and signals, which end a sweep, too.
    """

    @wraps(task)
    def wrapped(config: DictConfig) -> Outcome:
        folder = output_folder()
        if in_sweep():
            log.info("%s", run_name(folder))
        try:
            leaves = task(config)
        except Exception as error:
            HEARD.again()
            if config.debug:
                log.exception("the run failed")
            return Outcome(str(folder), _line(error, config.debug), isinstance(error, ConfigError))
        return Outcome(str(folder)) if leaves is None else Outcome(str(folder), leaves=leaves)

    return wrapped


def _line(error: Exception, debug: bool) -> str:
    if isinstance(error, LabError):
        return str(error)
    return unforeseen(error, debug, "debug=true")


def output_folder() -> Path:
    """The folder that Hydra made for a run."""
    return Path(HydraConfig.get().runtime.output_dir)


def in_sweep() -> bool:
    """Whether this is a job of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def overrides_text() -> str:
    """What the command line says beside folders, as a YAML list."""
    return OmegaConf.to_yaml(HydraConfig.get().overrides.task)


def enter(stacked: "StackedRun | None") -> None:
    """Note for what this thread does next whether its run is trained with others."""
    _thread.stacked = stacked


def stacked_run() -> "StackedRun | None":
    """This thread's hold on the runs that are trained with its own; None: it is alone."""
    return getattr(_thread, "stacked", None)


@cache
def shared_inputs() -> "SharedInputs":
    """What the runs of this process share: base models and latents."""
    from lora_lab.data.inputs import SharedInputs

    return SharedInputs()
