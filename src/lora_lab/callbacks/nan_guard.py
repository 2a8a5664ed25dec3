"""Stops a run before the optimizer sees anything that isn't a number.

One NaN gradient is enough for D-Adaptation's d never to grow again, so the guard comes before the
step; nothing is repaired in silence.
"""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.optim import Optimizer

from lora_lab.errors import LabError
from lora_lab.module import LoRAModule

NEXT_STEP = "lower optimizer.lr or optimizer.growth_rate, or use trainer.precision=32-true"


class NaNGuard(pl.Callback):
    """Checks loss and gradients of each batch."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.step = 0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember whose losses these will be."""
        self.keys = batch["keys"]
        self.step = batch["step"]

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """The loss of a batch is known.

        Raises:
            LabError: It isn't finite; names the images.
        """
        assert isinstance(pl_module, LoRAModule)
        if bool(torch.isfinite(loss)):
            return
        finite = torch.isfinite(pl_module.losses[-1]).tolist()
        images = [key for key, good in zip(self.keys, finite, strict=True) if not good]
        raise LabError(
            f"the loss of {', '.join(images)} at step {self.step} is not finite; {NEXT_STEP}"
        )

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """All gradients of a step are there.

        Raises:
            LabError: One isn't finite; names part and images.
        """
        assert isinstance(pl_module, LoRAModule)
        for part, flat in pl_module.flat.items():
            assert flat.grad is not None
            if not bool(torch.isfinite(flat.grad).all()):
                raise LabError(
                    f"the gradient of the {part} at step {self.step} is not finite "
                    f"(images {', '.join(self.keys)}); {NEXT_STEP}"
                )
