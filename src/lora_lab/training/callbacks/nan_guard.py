"""Keeps every gradient that isn't finite away from the optimizer.

One NaN gradient is enough for D-Adaptation's d never to grow again, so the guard comes before the
step: the step is left out whole, or the run ends. Nothing is repaired.
"""

import logging
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from lora_lab.errors import LabError
from lora_lab.optimizers import StepLeftOut
from lora_lab.training.module import LoRAModule

log = logging.getLogger(__name__)

NEXT_STEP = "lower optimizer.lr or optimizer.growth_rate, or use trainer.precision=32-true"


class NaNGuard(pl.Callback):
    """Checks the gradients of each step, when all batches and devices have added theirs.

    Args:
        max_skipped: How many steps are left out before the run ends.
        write: Adds facts to run.json.
    """

    def __init__(self, max_skipped: int, write: Callable[..., None]) -> None:
        self.max_skipped = max_skipped
        self.write = write
        self.skipped: list[int] = []
        """Steps that were left out."""
        self.keys: list[str] = []
        self.bad_images: list[str] = []
        self.step = 0

    def state_dict(self) -> dict[str, list[int]]:
        """The steps left out so far, which a resumed run goes on counting."""
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, list[int]]) -> None:
        """Go on counting."""
        self.skipped = list(state_dict["skipped"])

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember whose losses these will be."""
        self.keys = batch["keys"]
        if batch["step"] != self.step:
            self.step, self.bad_images = batch["step"], []

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """The loss of a batch is known: remember the images whose loss isn't finite."""
        assert isinstance(pl_module, LoRAModule)
        if not bool(torch.isfinite(loss)):
            finite = torch.isfinite(pl_module.losses[-1]).tolist()
            self.bad_images += [k for k, good in zip(self.keys, finite, strict=True) if not good]

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """All gradients of a step are there, summed over batches and devices, unscaled.

        Raises:
            LabError: One isn't finite and no more steps may be left out.
            StepLeftOut: One isn't finite; the optimizer sees nothing of this step.
        """
        assert isinstance(pl_module, LoRAModule)
        parts = [
            part
            for part, tensors in pl_module.trained.items()
            if not all(_finite(tensor.grad) for tensor in tensors)
        ]
        if not parts:
            return
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and not self.bad_images and scaler.get_scale() > 1.0:
            return  # fp16's search for a scale: the scaler leaves the step out and lowers it
        self._leave_out(self._problem(parts))
        if scaler is None:
            raise StepLeftOut

    def _problem(self, parts: list[str]) -> str:
        if self.bad_images:
            images = ", ".join(dict.fromkeys(self.bad_images))
            return f"the loss of {images} at step {self.step} is not finite"
        return f"the gradient of the {' and '.join(parts)} at step {self.step} is not finite"

    def _leave_out(self, problem: str) -> None:
        if len(self.skipped) >= self.max_skipped:
            before = f" after steps {self.skipped} were left out" if self.skipped else ""
            raise LabError(
                f"{problem}{before} (trainer.max_skipped_steps={self.max_skipped}); {NEXT_STEP}"
            )
        self.skipped.append(self.step)
        log.warning(
            "%s: step left out, %d of at most %d", problem, len(self.skipped), self.max_skipped
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the steps that were left out."""
        self.write(skipped_steps=self.skipped)


def _finite(gradient: Tensor | None) -> bool:
    return gradient is None or bool(torch.isfinite(gradient).all())
