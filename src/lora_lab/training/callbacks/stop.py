"""Ctrl-C, SIGTERM and SIGUSR1 end a run at the next step, with a checkpoint of that step.

Clouds and slurm send one of them some seconds before they take a machine away. A second Ctrl-C ends
the run at once.
"""

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from lora_lab.data.batch import Batch
from lora_lab.errors import Stopped
from lora_lab.files import atomic_path
from lora_lab.run_folder.folder import CHECKPOINT, flush_tables
from lora_lab.training.callbacks.step_callback import StepCallback
from lora_lab.training.module import LoRAModule

log = logging.getLogger(__name__)
SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1")
    if name in signal.Signals.__members__
)
ENDING = (signal.SIGINT, signal.SIGTERM)
"""After these the command ends; whoever listened to another one before is told of it."""


class StopOnSignal(StepCallback):
    """Comes after every callback whose state is to be kept.

    Args:
        run_dir: The run folder.
        total_steps: Optimizer steps of the run; after the last one it ends by itself.
    """

    def __init__(self, run_dir: Path, total_steps: int) -> None:
        self.run_dir = run_dir
        self.total_steps = total_steps
        self.asked: int | None = None
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen, in place of Lightning, which would stop at the end of an epoch.

        The trainer gives the signals back (`InterruptibleTrainer`).
        """
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.asked == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = number

    def on_step_end(self, trainer: pl.Trainer, module: LoRAModule, batch: Batch) -> None:
        """Save and stop when a signal came, on all ranks together.

        Raises:
            Stopped: The run ends here and can be resumed.
        """
        if module.stacked is not None:  # in a thread of its own, which hears no signal
            self.asked = module.stacked.asked_to_stop
        asked = self.asked is not None
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if not asked or batch["step"] == self.total_steps:
            return
        save_checkpoint(trainer, self.run_dir)
        for listened, handler in self.before.items():
            signal.signal(listened, handler)
        number = self.asked or signal.SIGTERM
        log.warning("stopped at step %d by %s", batch["step"], signal.Signals(number).name)
        if number not in ENDING and callable(self.before.get(number)):
            signal.raise_signal(number)  # submitit hands the job to slurm again, and exits
        raise Stopped(number, batch["step"])


def save_checkpoint(trainer: pl.Trainer, run_dir: Path) -> None:
    """Write last.ckpt, whole or not at all; every rank calls it, the first one writes.

    Raises:
        LabError: A step before it was not finite.
    """
    assert isinstance(trainer.lightning_module, LoRAModule)
    trainer.lightning_module.unread.read()
    if trainer.is_global_zero:
        flush_tables(run_dir)  # a run that goes on from here keeps these rows
        with atomic_path(run_dir / CHECKPOINT) as temporary:
            trainer.save_checkpoint(temporary)
    else:
        trainer.save_checkpoint(run_dir / CHECKPOINT)
