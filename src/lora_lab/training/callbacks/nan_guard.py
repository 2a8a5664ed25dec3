"""Keeps every gradient that isn't finite away from what is saved.

One NaN gradient is enough for D-Adaptation's d never to grow again. Where steps may be left out,
the guard comes before the step. Where the first one ends the run, a GPU needn't wait for the
answer: the step is taken, and the run ends when the step's figures are read, before anything is
saved. Nothing is repaired.
"""

import logging
from collections.abc import Callable
from functools import partial
from math import inf, isfinite
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from lora_lab.data.batch import Batch
from lora_lab.errors import LabError
from lora_lab.optimizers import StepLeftOut
from lora_lab.training.callbacks.step_callback import StepCallback
from lora_lab.training.module import LoRAModule

log = logging.getLogger(__name__)

NEXT_STEP = "lower optimizer.lr or optimizer.growth_rate, or use trainer.precision=32-true"


class NaNGuard(StepCallback):
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
        """Of the images of the step so far."""
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
        if batch["step"] != self.step:
            self.step, self.keys = batch["step"], []
        self.keys = [*self.keys, *batch["keys"]]

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """All gradients of a step are there, summed over batches and devices, unscaled.

        Raises:
            LabError: One isn't finite and no more steps may be left out.
            StepLeftOut: One isn't finite; the optimizer sees nothing of this step.
        """
        assert isinstance(pl_module, LoRAModule)
        trained = pl_module.trained
        numbers = torch.cat([*(_largest(trained[part]) for part in trained), *pl_module.losses])
        tell = partial(self._problem, tuple(trained), self.step, self.keys)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if self.max_skipped == 0 and scaler is None and pl_module.steps_a_read > 1:
            pl_module.unread.add(numbers, lambda values: self._leave_out(tell(values)))
            return
        values = numbers.tolist()
        problem = tell(values)
        if problem is None:
            return
        losses = values[len(trained) :]
        if scaler is not None and all(map(isfinite, losses)) and scaler.get_scale() > 1.0:
            return  # fp16's search for a scale: the scaler leaves the step out and lowers it
        self._leave_out(problem)
        if scaler is None:
            raise StepLeftOut

    def on_step_end(self, trainer: pl.Trainer, module: LoRAModule, batch: Batch) -> None:
        """Read what is kept, on all devices after the same steps."""
        if self.is_read(module, batch):
            module.unread.read()

    @staticmethod
    def _problem(
        parts: tuple[str, ...], step: int, keys: list[str], values: list[float]
    ) -> str | None:
        """What isn't finite in a step, of the largest gradient of each part and the losses."""
        bad = [part for part, value in zip(parts, values, strict=False) if not isfinite(value)]
        if not bad:
            return None
        losses = zip(keys, values[len(parts) :], strict=True)
        images = dict.fromkeys(key for key, loss in losses if not isfinite(loss))
        if images:
            return f"the loss of {', '.join(images)} at step {step} is not finite"
        return f"the gradient of the {' and '.join(bad)} at step {step} is not finite"

    def _leave_out(self, problem: str | None) -> None:
        if problem is None:
            return
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


def _largest(tensors: list[Parameter]) -> Tensor:
    """The largest entry of all gradients of a part, NaN where one is, (1,)."""
    norms = [torch.linalg.vector_norm(p.grad, inf) for p in tensors if p.grad is not None]
    if not norms:
        return tensors[0].new_zeros(1)
    return torch.stack(norms).float().amax(dim=0, keepdim=True)
