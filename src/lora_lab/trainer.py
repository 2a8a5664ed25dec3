"""Lightning's trainer as a run uses it: its hardware, its loop, and how the loop is ended."""

import logging
import signal
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from lora_lab.config import TrainConfig, TrainerConfig
from lora_lab.data.loader import PairedLoader
from lora_lab.errors import ConfigError
from lora_lab.module import LoRAModule


def set_hardware(config: TrainConfig) -> None:
    """Set CPU threads and silence Lightning's hints.

    Raises:
        ConfigError: More devices than one are asked for.
    """
    if config.trainer.devices != 1:
        raise ConfigError(
            f"trainer.devices must be 1, got {config.trainer.devices}: "
            "training on several devices at once isn't built"
        )
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    torch.set_float32_matmul_precision(config.trainer.matmul_precision)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")  # hints about loops that aren't ours


def build_trainer(
    config: TrainConfig, run_dir: Path, callbacks: list[pl.Callback], loggers: list[Any]
) -> pl.Trainer:
    """Lightning's loop, without anything that our callbacks do."""
    settings = config.trainer
    return pl.Trainer(
        max_epochs=config.epochs,
        accelerator=settings.accelerator,
        devices=settings.devices,
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
        raise KeyboardInterrupt from stop
