"""What every process but the first does when several devices train one LoRA; it writes no file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from lora_lab.clock import Clock
from lora_lab.config import TrainConfig
from lora_lab.data.data_module import LoRADataModule
from lora_lab.data.inputs import Inputs, SharedInputs
from lora_lab.network import inject_lora
from lora_lab.run_folder.folder import CHECKPOINT
from lora_lab.training.acceleration import Acceleration
from lora_lab.training.callbacks import DLR, Cost, GatherLosses, JoinSaves, NaNGuard, StopOnSignal
from lora_lab.training.callbacks.lora_export import checkpoint_steps, save_steps
from lora_lab.training.callbacks.pause import Pause, pause_step
from lora_lab.training.module import LoRAModule
from lora_lab.training.ranks import Rank
from lora_lab.training.trainer import build_trainer, set_hardware


def train_beside(rank: Rank, ready: Callable[[], None], config: TrainConfig, run_dir: Path) -> None:
    """Train beside the first process, which tells the story of the run (train.py).

    Args:
        rank: This process.
        ready: Called when the inputs are loaded and training can begin.
        config: The run's settings.
        run_dir: The run folder; the first process has settled what it holds.
    """
    checkpoint = run_dir / CHECKPOINT
    resumed = checkpoint.is_file()
    set_hardware(config.trainer)
    inputs = Inputs.load(config, SharedInputs(), Clock())
    ready()
    data = LoRADataModule(inputs, config)
    with inject_lora(inputs.base, config.network, config.seed) as network:
        module = LoRAModule(inputs.base, network, config, data.total_steps)
        callbacks: list[pl.Callback] = [
            Acceleration(inputs.base, config.trainer),
            Cost(Clock()),
            NaNGuard(config.trainer.max_skipped_steps, _write_nothing),
            DLR(),
            GatherLosses(),
            JoinSaves(run_dir, set(checkpoint_steps(config, data.total_steps))),
            StopOnSignal(run_dir, data.total_steps),
        ]
        pause = pause_step(save_steps(data.total_steps, config.save_every))
        if config.study.pause and pause < data.total_steps:
            callbacks.append(Pause(pause, data.total_steps, told=None))
        trainer = build_trainer(config, run_dir, callbacks, [], beside=None, rank=rank)
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint if resumed else None)


def _write_nothing(**facts: Any) -> None:
    """In place of run.json, which the first process writes."""
