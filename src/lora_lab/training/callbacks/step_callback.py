"""A callback that acts after optimizer steps, of which one may take several batches."""

from typing import Any

import lightning.pytorch as pl

from lora_lab.data.batch import Batch
from lora_lab.training.module import LoRAModule


class StepCallback(pl.Callback):
    """Calls ``on_step_end`` once a step, with our module's type."""

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Lightning's hook after each batch."""
        if batch["ends_step"]:
            assert isinstance(pl_module, LoRAModule)
            self.on_step_end(trainer, pl_module, batch)

    @staticmethod
    def is_read(module: LoRAModule, batch: Batch) -> bool:
        """Whether figures are read after this step; whoever saves reads them, too."""
        return batch["step"] % module.steps_a_read == 0 or batch["ends_epoch"]

    def on_step_end(self, trainer: pl.Trainer, module: LoRAModule, batch: Batch) -> None:
        """The optimizer has stepped; ``batch`` is the last one of the step."""
        raise NotImplementedError
