"""Lightning's trainer as a run uses it: its hardware, its loop, and how the loop is ended."""

import logging
import os
import signal
import threading
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from lora_lab.config import TrainConfig, TrainerConfig
from lora_lab.errors import ConfigError, LabError, Stopped, one_line
from lora_lab.files import open_regular
from lora_lab.training.acceleration import check_acceleration
from lora_lab.training.callbacks.stop import SIGNALS
from lora_lab.training.ranks import ALONE, OurRanks, Rank, SharedStep, first_rank


def set_hardware(config: TrainerConfig) -> None:
    """Set CPU threads and silence Lightning's hints.

    Raises:
        ConfigError: The machine lacks what the settings ask for.
    """
    devices, accelerator = config.devices, config.accelerator
    gpus = torch.cuda.device_count()
    if accelerator in ("auto", "gpu") and gpus and devices > gpus:
        raise ConfigError(f"trainer.devices must be at most {gpus} on this machine, got {devices}")
    cores = os.cpu_count() or 1
    if (accelerator == "cpu" or not gpus) and devices > cores:
        raise ConfigError(
            f"trainer.devices must be at most {cores} on this machine's CPU, got {devices}"
        )
    if accelerator == "mps" and devices > 1:
        raise ConfigError(f"trainer.devices must be 1 with trainer.accelerator=mps, got {devices}")
    if config.precision == "16-mixed" and not torch.cuda.is_available():
        # Lightning would take bf16 in its place, with a warning.
        raise ConfigError(
            "trainer.precision=16-mixed needs a GPU, and there is none; "
            "choose 32-true or bf16-mixed"
        )
    check_acceleration(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.set_float32_matmul_precision(config.matmul_precision)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")  # hints about loops that aren't ours


def build_trainer(
    config: TrainConfig,
    run_dir: Path,
    callbacks: list[pl.Callback],
    loggers: list[Any],
    beside: Callable[..., None] | None,
    rank: Rank | None = None,
) -> pl.Trainer:
    """Lightning's loop, without anything that our callbacks do.

    Args:
        config: The run's settings.
        run_dir: The run folder.
        callbacks: What happens beside training.
        loggers: Where figures go beside metrics.csv.
        beside: What the processes of the other devices do, which the first one starts when
            training begins (`train_beside`); None in one of them.
        rank: This process among those that train together; None is the first.
    """
    settings = config.trainer
    own = rank or first_rank(settings.devices)
    return InterruptibleTrainer(
        max_epochs=config.epochs,
        accelerator=settings.accelerator,
        devices=settings.devices,
        strategy="auto" if own == ALONE else SharedStep(own, beside, config, run_dir),
        plugins=[OurRanks(own)],
        # With bf16-true the base is cast (acceleration.py), and the LoRA stays apart.
        precision="32-true" if settings.precision == "bf16-true" else settings.precision,  # type: ignore[arg-type]  # one that it knows
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


class InterruptibleTrainer(pl.Trainer):
    """Lightning's trainer, out of which Ctrl-C and signals come as what they are."""

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Train, as Lightning does.

        Raises:
            LabError: The checkpoint is damaged.
            KeyboardInterrupt: Ctrl-C, which Lightning turns into an exit.
            Stopped: A signal ended the run; it can be resumed.
        """
        if kwargs.get("ckpt_path") is not None:
            check_checkpoint(Path(kwargs["ckpt_path"]))
        in_main = threading.current_thread() is threading.main_thread()
        before = {number: signal.getsignal(number) for number in SIGNALS} if in_main else {}
        try:
            super().fit(*args, **kwargs)
        except SystemExit as stop:
            if isinstance(stop.__context__, Stopped):
                raise stop.__context__ from None
            if isinstance(stop.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from stop
            raise  # submitit has handed the job to slurm again
        except ValueError as error:
            # Outside of the main thread Lightning fails to turn Ctrl-C off before it ends.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise
        finally:
            # A handler of Lightning or a callback that stays would keep this trainer and its LoRA.
            for number, handler in before.items():
                if handler is not None:  # None: it was not installed from Python
                    signal.signal(number, handler)


def check_checkpoint(path: Path) -> None:
    """Hold a checkpoint's bytes against their checksums, and its content against what is allowed.

    Raises:
        LabError: It is damaged, or holds more than tensors and plain values.
    """
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"the checksum of {damaged} is wrong")
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises many kinds; its advice is to trust the file
        reason = one_line(error, 100) if isinstance(error, ValueError | OSError) else "not readable"
        raise LabError(
            f"{path} is damaged ({reason}), so its run can't be resumed: start it again with "
            "overwrite=true, or choose another folder"
        ) from error
