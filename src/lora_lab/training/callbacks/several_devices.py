"""What several devices that train together must do at the same time."""

from pathlib import Path

import lightning.pytorch as pl
import torch

from lora_lab.data.batch import Batch
from lora_lab.training.callbacks.step_callback import StepCallback
from lora_lab.training.callbacks.stop import save_checkpoint
from lora_lab.training.module import LoRAModule


class GatherLosses(StepCallback):
    """Puts the mean of all ranks' losses in place of this rank's; comes before what records it."""

    def on_step_end(self, trainer: pl.Trainer, module: LoRAModule, batch: Batch) -> None:
        """The batches' weights are such that the mean of the ranks' means is the whole's."""
        losses = torch.cat(module.losses).double()
        several = module.config.trainer.accumulate_grad_batches > 1
        own = losses.sum() / batch["step_images"] if several else losses.mean()
        mean = trainer.strategy.reduce(own, reduce_op="mean")
        assert isinstance(mean, torch.Tensor)
        module.losses = [mean.reshape(1)]


class JoinSaves(StepCallback):
    """Takes part in a save that the first rank writes: Lightning lets all ranks meet there.

    Args:
        run_dir: The run folder.
        steps: When last.ckpt is written.
    """

    def __init__(self, run_dir: Path, steps: set[int]) -> None:
        self.run_dir = run_dir
        self.steps = steps

    def on_step_end(self, trainer: pl.Trainer, module: LoRAModule, batch: Batch) -> None:
        """Wait for the first rank."""
        if batch["step"] in self.steps:
            save_checkpoint(trainer, self.run_dir)
