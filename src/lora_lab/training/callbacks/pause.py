"""Stops a run at a third of its steps, so that its sweep can tell whether it is worth the rest."""

from collections.abc import Callable, Sequence

import lightning.pytorch as pl

from lora_lab.data.batch import Batch
from lora_lab.training.callbacks.step_callback import StepCallback
from lora_lab.training.module import LoRAModule

SHARE = 1 / 3
"""Of the run, after which it pauses at the next save."""


class Pause(StepCallback):
    """Ends the loop after a save. Comes after what saves; a run that is beyond it stops at once.

    Args:
        step: Where to stop.
        total_steps: Optimizer steps of the whole run.
        told: Is told both when the run stops; None in a process that writes no file.
    """

    def __init__(
        self, step: int, total_steps: int, told: Callable[[int, int], None] | None
    ) -> None:
        self.step = step
        self.total_steps = total_steps
        self.told = told

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that was ended right after the save stands at the step already."""
        self._stop_from(trainer.global_step, trainer)

    def on_step_end(self, trainer: pl.Trainer, module: LoRAModule, batch: Batch) -> None:
        """Stop, if the step is the one."""
        self._stop_from(batch["step"], trainer)

    def _stop_from(self, step: int, trainer: pl.Trainer) -> None:
        if step >= self.step and not trainer.should_stop:
            trainer.should_stop = True
            if self.told is not None:
                self.told(self.step, self.total_steps)


def pause_step(saves: Sequence[int]) -> int:
    """The first save after a third of a run; its end where no earlier one is so late.

    Args:
        saves: Steps after which the run saves, ascending; the last is its end.
    """
    return next(step for step in saves if step >= SHARE * saves[-1])
