"""A progress bar with the rate, the loss and the time left."""

import logging
import sys
import time
from typing import TextIO

import lightning.pytorch as pl

from lora_lab.data.batch import Batch
from lora_lab.training.callbacks.step_callback import StepCallback
from lora_lab.training.module import LoRAModule

log = logging.getLogger(__name__)

BAR_WIDTH = 24
SECONDS_BETWEEN_DRAWS = 0.1
SECONDS_BETWEEN_LINES = 10.0


class Progress(StepCallback):
    """Draws a bar on a terminal; elsewhere logs a plain line now and then.

    Args:
        total_steps: Optimizer steps of the run.
        runs: Of a stack, which all stand at the same step; 1: the run is alone.
        stream: Where the bar is drawn; stderr if None.
    """

    def __init__(self, total_steps: int, runs: int = 1, stream: TextIO | None = None) -> None:
        self.total_steps = total_steps
        self.runs = runs
        self.stream = stream or sys.stderr
        self.terminal = self.stream.isatty()
        self.drawn = self.began = 0.0
        self.first_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        self.began = self.drawn = time.perf_counter()
        self.first_step = trainer.global_step

    def on_step_end(self, trainer: pl.Trainer, module: LoRAModule, batch: Batch) -> None:
        """Draw, if the last time is long enough ago."""
        now = time.perf_counter()
        step = batch["step"]
        pause = SECONDS_BETWEEN_DRAWS if self.terminal else SECONDS_BETWEEN_LINES
        if step < self.total_steps and now - self.drawn < pause:
            return
        self.drawn = now
        rate = (now - self.began) / max(1, step - self.first_step)
        text = describe(step, self.total_steps, module.latest, rate)
        if self.runs > 1:
            text = f"{text} ({self.runs} runs at once)"
        if self.terminal:
            ending = "\n" if step == self.total_steps else ""
            self.stream.write(f"\r{bar(step, self.total_steps)} {text}\x1b[K{ending}")
            self.stream.flush()
        else:
            log.info("%s", text)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave the bar's line, so that the error has its own."""
        if self.terminal:
            self.stream.write("\n")
            self.stream.flush()


def bar(step: int, total_steps: int) -> str:
    """A bar of ``BAR_WIDTH`` characters."""
    filled = BAR_WIDTH * step // total_steps
    return "█" * filled + "░" * (BAR_WIDTH - filled)


def describe(step: int, total_steps: int, record: dict[str, float], seconds_a_step: float) -> str:
    """One line: step, share, rate, loss, time left.

    Args:
        step: From 1.
        total_steps: Of the run.
        record: Figures of the last step that was read; the rate is the UNet's, or the text
            encoder's without one.
        seconds_a_step: Mean so far.
    """
    rate = record.get("dlr/unet", record.get("dlr/text_encoder"))
    parts = [f"step {step}/{total_steps} ({100 * step // total_steps} %)"]
    if rate is not None:
        parts.append(f"DLR {rate:.3g}")
    if "loss/step" in record:
        parts.append(f"loss {record['loss/step']:.4f}")
    minutes, seconds = divmod(round(seconds_a_step * (total_steps - step)), 60)
    parts.append(f"{minutes}:{seconds:02d} left")
    return "  ".join(parts)
