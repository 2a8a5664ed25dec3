"""Seconds and memory of a run."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import psutil
import torch

from lora_lab.clock import Clock
from lora_lab.data.batch import Batch
from lora_lab.training.callbacks.step_callback import StepCallback
from lora_lab.training.module import LoRAModule

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class Cost(StepCallback):
    """Times each step. Comes first, so that a step ends before saving and logging begin.

    Args:
        clock: Counts the seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The first step begins."""
        self.clock.start_training()

    def on_step_end(self, trainer: pl.Trainer, module: LoRAModule, batch: Batch) -> None:
        """A step has ended; saving and the held-out loss come after it and count for themselves."""
        self.clock.end_step()
        module.record["seconds"] = self.clock.seconds["training"]


def reset_peak_memory() -> None:
    """Begin to count the peak memory anew, as far as the system allows."""
    if _CLEAR_REFS.exists():
        with suppress(OSError):  # where it isn't allowed, the peak counts from the process's start
            _CLEAR_REFS.write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def costs(clock: Clock, trainer: pl.Trainer) -> dict[str, Any]:
    """What a finished run says of itself in run.json: device, steps, seconds, memory."""
    return {
        "device": str(trainer.strategy.root_device),
        "seconds": clock.report(),
        "peak_memory_bytes": peak_memory(),
        "steps": trainer.global_step,
    }


def peak_memory() -> dict[str, int | None]:
    """Most bytes that the process (resident) and the device (allocated) have held."""
    device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return {"process": _peak_process(), "device": device}


def _peak_process() -> int:
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
