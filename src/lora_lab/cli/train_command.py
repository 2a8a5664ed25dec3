"""One training run as a command or as a job of a sweep; it never raises, so that others go on."""

import logging
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from lora_lab.cli.data_report_command import data_report_command
from lora_lab.cli.existing import is_same_run, obstacle, shared_inputs
from lora_lab.cli.preflight import checked_train_config
from lora_lab.config import TrainConfig
from lora_lab.errors import ConfigError, LabError
from lora_lab.run_folder.resume import NEXT_STEP

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    folder: str
    """The run folder."""
    error: str | None = None
    """Why it failed, in one line; None: it is complete."""
    refused: bool = False
    """Whether it failed before anything was started."""
    reused: bool = False
    """Whether it was there already."""
    leaves: str = "lora/, metrics.csv, config.yaml and run.json"
    """What the command has left in the folder, for its last line."""


def train_command(config: DictConfig) -> Outcome:
    """Trains one LoRA in the folder that Hydra made for it.

    Args:
        config: the composed config, without Hydra's own node.

    Raises:
        KeyboardInterrupt: Ctrl-C, which ends a sweep too.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        log.info("%s", folder.name)
    debug = bool(config.debug)
    try:
        return _train(checked_train_config(config), folder)
    except LabError as error:
        if debug:
            log.exception("the run failed")
        return Outcome(str(folder), str(error), refused=isinstance(error, ConfigError))
    except Exception as error:
        if debug:
            log.exception("the run failed")
        hint = "" if debug else "; debug=true shows where"
        return Outcome(str(folder), f"{type(error).__name__}: {' '.join(str(error).split())}{hint}")


def _train(config: TrainConfig, folder: Path) -> Outcome:
    if config.data_report:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise ConfigError("data_report must be false in a sweep, got true; leave out -m")
        data_report_command(config, folder)
        return Outcome(str(folder), leaves="data_report.html, its .json and contact_sheet.png")
    if is_same_run(folder, config):
        log.info("%s holds this run already: same settings, inputs and code", folder)
        return Outcome(str(folder), reused=True)
    reason = obstacle(folder, config)
    if reason is not None:
        raise ConfigError(f"{folder} {reason}; {NEXT_STEP}")
    from lora_lab.training.run import train

    train(config, folder, shared_inputs(), overrides=_overrides_text())
    return Outcome(str(folder))


def _overrides_text() -> str:
    """Returns what the command line says beside folders, as a YAML list."""
    return OmegaConf.to_yaml(HydraConfig.get().overrides.task)
