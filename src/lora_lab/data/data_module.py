"""The batches of a run, as Lightning asks for them."""

import lightning.pytorch as pl

from lora_lab.config import TrainConfig
from lora_lab.data.inputs import Inputs
from lora_lab.data.loader import PairedLoader
from lora_lab.data.probes import HeldOutProbes, Probe, make_probes


class LoRADataModule(pl.LightningDataModule):
    """Paired training batches that resume exactly, and the probes of the held-out loss.

    Args:
        inputs: What the run reads.
        config: The run's settings.
    """

    def __init__(self, inputs: Inputs, config: TrainConfig) -> None:
        super().__init__()
        base = inputs.base
        self.loader = PairedLoader(
            items=inputs.items,
            tokenizer=base.tokenizer,
            config=config.data,
            objective=config.objective,
            seed=config.seed,
            timesteps=base.noise_scheduler.config["num_train_timesteps"],
            accumulate=config.trainer.accumulate_grad_batches,
            share=(0, config.trainer.devices),
        )
        self.total_steps = config.epochs * self.loader.steps_per_epoch
        """Optimizer steps of the whole run."""
        self.probes = HeldOutProbes([], [], [])
        """What the held-out loss is measured on, and when; empty without held-out images."""
        if config.callbacks.held_out_loss:
            training = inputs.training_items
            self.probes = make_probes(inputs.held_out, training, base.tokenizer, config.data)

    def train_dataloader(self) -> PairedLoader:
        """The loader, which delivers this process's share and keeps its place in a checkpoint."""
        if self.trainer is not None:
            self.loader.rank = self.trainer.global_rank
        return self.loader

    def val_dataloader(self) -> list[Probe]:
        """What the held-out loss is measured on at the end; empty without held-out images."""
        return self.probes.last
