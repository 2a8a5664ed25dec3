"""TensorBoard and Weights & Biases, by choice; the only file that imports wandb.

metrics.csv is always written, by a callback. No key is ever read from the config or written: wandb
takes it from its own login.
"""

import dataclasses
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from lora_lab.config import TrainConfig, WandbConfig
from lora_lab.errors import LabError


def build_loggers(config: TrainConfig, run_dir: Path) -> list[Logger]:
    """The loggers that the config turns on, beside metrics.csv; several at once are possible.

    Args:
        config: The run's settings, which the loggers store without paths.
        run_dir: Files go to its tensorboard/ and wandb/.

    Raises:
        LabError: Weights & Biases can't be started.
    """
    loggers: list[Logger] = []
    if config.logger.tensorboard:
        from lightning.pytorch.loggers import TensorBoardLogger

        loggers.append(TensorBoardLogger(run_dir, name="tensorboard", version=""))
    if config.logger.wandb.enabled:
        loggers.append(_wandb_logger(config, run_dir))
    return loggers


def finish(loggers: list[Logger], ok: bool) -> None:
    """Close the loggers; in a sweep the next run begins in the same process."""
    for logger in loggers:
        logger.finalize("success" if ok else "failed")
    if any(type(logger).__name__ == "WandbLogger" for logger in loggers):
        import wandb

        wandb.finish(exit_code=0 if ok else 1)


def _wandb_logger(config: TrainConfig, run_dir: Path) -> Logger:
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    settings = config.logger.wandb
    try:
        run = wandb.init(
            project=settings.project,
            group=settings.group,
            name=run_dir.name,
            dir=run_dir,
            mode=_mode(settings),
            config=public_settings(config),
            settings=wandb.Settings(
                console="off", silent=True, save_code=False, x_disable_meta=True
            ),
        )
    except (wandb.errors.Error, OSError) as error:
        raise LabError(
            f"Weights & Biases could not be started ({error}); "
            "run `wandb login` or set logger.wandb.mode=offline"
        ) from error
    return WandbLogger(experiment=run)


def _mode(settings: WandbConfig) -> Any:
    """``auto`` is online when there is a login, else offline; wandb reads WANDB_MODE itself."""
    import os

    import wandb

    if settings.mode != "auto":
        return settings.mode
    if "WANDB_MODE" in os.environ:
        return None
    return "online" if wandb.api.api_key else "offline"


def public_settings(config: TrainConfig) -> dict[str, Any]:
    """The config as plain values without loggers, and without the paths of this machine."""
    values = dataclasses.asdict(config)
    del values["logger"]
    for section, key in (("model", "checkpoint"), ("data", "dir"), ("data", "held_out_dir")):
        if values[section][key] is not None:
            values[section][key] = Path(values[section][key]).name
    del values["data"]["cache_dir"]
    return values
