"""Lightning's trainer as a run uses it: its hardware, its loop, and how the loop is ended."""

import logging
import signal
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy

from lora_lab.config import TrainConfig, TrainerConfig
from lora_lab.data.loader import PairedLoader
from lora_lab.errors import ConfigError, Stopped
from lora_lab.training.module import LoRAModule
from lora_lab.training.ranks import ALONE, OurRanks, Rank


def set_hardware(config: TrainConfig) -> None:
    """Set CPU threads and silence Lightning's hints.

    Raises:
        ConfigError: More devices are asked for than the machine has.
    """
    devices, accelerator = config.trainer.devices, config.trainer.accelerator
    gpus = torch.cuda.device_count()
    if accelerator in ("auto", "gpu") and gpus and devices > gpus:
        raise ConfigError(f"trainer.devices must be at most {gpus} on this machine, got {devices}")
    if accelerator == "mps" and devices > 1:
        raise ConfigError(f"trainer.devices must be 1 with trainer.accelerator=mps, got {devices}")
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    torch.set_float32_matmul_precision(config.trainer.matmul_precision)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")  # hints about loops that aren't ours


def build_trainer(
    config: TrainConfig,
    run_dir: Path,
    callbacks: list[pl.Callback],
    loggers: list[Any],
    rank: Rank = ALONE,
) -> pl.Trainer:
    """Lightning's loop, without anything that our callbacks do.

    Args:
        config: The run's settings.
        run_dir: The run folder.
        callbacks: What happens beside training.
        loggers: Where figures go beside metrics.csv.
        rank: This process among those that train together.
    """
    settings = config.trainer
    several = DDPStrategy() if rank.count > 1 else "auto"  # NCCL on GPUs, Gloo on CPUs
    return pl.Trainer(
        max_epochs=config.epochs,
        accelerator=settings.accelerator,
        devices=settings.devices,
        strategy=several,
        plugins=[OurRanks(rank)],
        precision=_loops_precision(settings),  # type: ignore[arg-type]  # one that it knows
        accumulate_grad_batches=settings.accumulate_grad_batches,
        gradient_clip_val=settings.gradient_clip_val or None,
        deterministic="warn" if torch.cuda.is_available() else None,
        logger=loggers or False,
        callbacks=callbacks,
        default_root_dir=run_dir,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _loops_precision(settings: TrainerConfig) -> str:
    """What the loop does by itself; with bf16-true the base is cast, and the LoRA stays apart.

    Raises:
        ConfigError: fp16 without a GPU: Lightning would take bf16 in its place, with a warning.
    """
    if settings.precision == "16-mixed" and not torch.cuda.is_available():
        raise ConfigError(
            "trainer.precision=16-mixed needs a GPU, and there is none; "
            "choose 32-true or bf16-mixed"
        )
    return "32-true" if settings.precision == "bf16-true" else settings.precision


def fit(
    trainer: pl.Trainer, module: LoRAModule, loader: PairedLoader, checkpoint: Path | None
) -> None:
    """Train; Ctrl-C comes out as KeyboardInterrupt, which Lightning turns into an exit."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, loader, ckpt_path=checkpoint)
    except SystemExit as stop:
        signal.signal(signal.SIGINT, handler)
        if isinstance(stop.__context__, Stopped):
            raise stop.__context__ from None
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from stop
        raise  # submitit has handed the job to slurm again
