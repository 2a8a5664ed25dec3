"""The adaptive learning rate of the step itself."""

import lightning.pytorch as pl
from torch.optim import Optimizer

from lora_lab.optimizers import step_rates
from lora_lab.training.module import LoRAModule


class DLR(pl.Callback):
    """Records d and d · lr of each part right before the step that uses them.

    After ``optimizer.step()`` both d and lr belong to the next step already.
    """

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Gradients are there, the step isn't taken yet."""
        assert isinstance(pl_module, LoRAModule)
        rates = step_rates(optimizer)
        if rates.d is not None:
            pl_module.record["d"] = rates.d
        pl_module.record |= {f"dlr/{part}": rate for part, rate in rates.dlr.items()}
