"""Tells after the first steps what a run will take, and at its end how true that was."""

import logging
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import psutil
import torch

from lora_lab.clock import Clock
from lora_lab.data.batch import Batch
from lora_lab.data.loader import PairedLoader
from lora_lab.training.callbacks.cost import peak_memory
from lora_lab.training.callbacks.step_callback import StepCallback
from lora_lab.training.forecast import (
    MEASURED,
    WARM_UP,
    Forecast,
    Memory,
    relative_error,
    seconds_ahead,
)
from lora_lab.training.module import LoRAModule

log = logging.getLogger(__name__)


class Estimate(StepCallback):
    """Measures the first steps as they are; nothing is run for the sake of measuring.

    Comes after ``Cost``, which ends a step, and before all that takes time of its own.

    Args:
        loader: Its plan tells the shapes of all batches.
        clock: Has the seconds of each step.
        write: Adds facts to run.json.
    """

    def __init__(self, loader: PairedLoader, clock: Clock, write: Callable[..., None]) -> None:
        self.loader = loader
        self.clock = clock
        self.write = write
        self.areas: list[float] = []
        """Latent pixels of each step of this process."""
        self.largest = 0.0
        """Latent pixels of the largest batch so far."""
        self.steps_left = 0
        self.before = (0, 0)
        self.forecast: Forecast | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Training begins, or goes on."""
        assert isinstance(pl_module, LoRAModule)
        self.steps_left = pl_module.total_steps - trainer.global_step
        device = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
        self.before = (psutil.Process().memory_info().rss, device)
        self.areas = [0.0]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the latent pixels of the step."""
        if self.forecast is None:
            area = float(batch["latents"][:, 0].numel())
            self.areas[-1] += area
            self.largest = max(self.largest, area)

    def on_step_end(self, trainer: pl.Trainer, module: LoRAModule, batch: Batch) -> None:
        """Tell, when enough steps were measured."""
        if self.forecast is not None:
            return
        if len(self.areas) < min(WARM_UP + MEASURED, self.steps_left):
            self.areas.append(0.0)
            return
        self.forecast = self._predict(module)
        log.info("%s", self.forecast.line())
        self.write(estimate=self.forecast.facts())

    def _predict(self, module: LoRAModule) -> Forecast:
        sizes = [item.latents[0].numel() * item.example.repeats for item in self.loader.items]
        epochs = module.total_steps / self.loader.steps_per_epoch
        done = epochs * (1.0 - self.steps_left / module.total_steps)
        left = max(0.0, sum(sizes) * (epochs - done) - sum(self.areas))
        steps = self.clock.steps[-len(self.areas) :]
        seconds = seconds_ahead(steps, self.areas, left)
        ratio = self._largest_batch() / self.largest
        peak = peak_memory()
        assert peak["process"] is not None
        device = peak["device"]
        trained = [tensor for tensors in module.trained.values() for tensor in tensors]
        return Forecast(
            steps=self.steps_left,
            seconds_per_step=seconds / self.steps_left,
            seconds=seconds,
            process_bytes=Memory(self.before[0], peak["process"]).at(ratio),
            device_bytes=None if device is None else Memory(self.before[1], device).at(ratio),
            lora_values=sum(tensor.numel() for tensor in trained),
            lora_bytes=_bytes(trained, module),
        )

    def _largest_batch(self) -> float:
        """Latent pixels of the largest batch of an epoch; all epochs have the same sizes."""
        return max(
            float(sum(self.loader.items[one.item].latents[0].numel() for one in shown))
            for shown in self.loader.plan(1)
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare with the truth; a run that pauses has none."""
        if self.forecast is None or trainer.should_stop:
            return
        peak, seconds = peak_memory(), sum(self.clock.steps)
        errors = {"seconds": relative_error(self.forecast.seconds, seconds)}
        if peak["process"] is not None:
            errors["process_bytes"] = relative_error(self.forecast.process_bytes, peak["process"])
        if peak["device"] and self.forecast.device_bytes is not None:
            errors["device_bytes"] = relative_error(self.forecast.device_bytes, peak["device"])
        self.write(estimate_error=errors)
        told = ", ".join(f"{name} {100 * error:+.1f} %" for name, error in errors.items())
        log.info("the estimate was off by: %s", told)


def _bytes(trained: list[torch.nn.Parameter], module: LoRAModule) -> int:
    """Bytes of the trained tensors, their gradients and what the optimizer keeps for them."""
    tensors: list[torch.Tensor] = [*trained]
    tensors += [tensor.grad for tensor in trained if tensor.grad is not None]
    assert module.optimizer is not None
    for state in module.optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
