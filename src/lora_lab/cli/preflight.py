"""What is checked before anything is started: keys, ranges, and that named files are there."""

import gc
import sys
from os.path import exists, expanduser, isdir, isfile
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from lora_lab.checkpoint.embedded import is_hub_name, locate
from lora_lab.config import (
    OptimizerConfig,
    SampleConfig,
    TrainConfig,
    check,
    check_sample,
    to_config,
)
from lora_lab.config.convert import to_sample_config, without_hydra
from lora_lab.errors import ConfigError, LabError, one_line
from lora_lab.files import require_regular

RUN_SIGNS = ("run.json", "sweep.json", "lora")
"""One of them stands in every run or sweep folder that can be drawn."""
CHECKPOINT_KEYS = ("model.checkpoint", "sampling.checkpoints")
FOLDER_KEYS = ("data.dir", "data.held_out_dir", "data.reg_dir")


def checked_train_config(config: DictConfig) -> TrainConfig:
    """Return the settings of a training run after all checks that need no heavy import.

    Args:
        config: The composed config, without Hydra's own node.

    Raises:
        ConfigError: One line for each problem.
    """
    typed = to_config(config)
    check(typed)
    named = {"model.checkpoint": typed.model.checkpoint, "data.dir": typed.data.dir}
    named |= {
        f"data.{key}": path
        for key in ("held_out_dir", "reg_dir")
        if (path := getattr(typed.data, key)) is not None
    }
    if typed.network.weights is not None:
        named["network.weights"] = typed.network.weights
    named |= {f"model.merge.{n}.file": item.file for n, item in enumerate(typed.model.merge)}
    _check_paths(named)
    _check_optimizer(typed.optimizer)
    return typed


def _check_optimizer(optimizer: OptimizerConfig) -> None:
    """Hold arguments against the optimizer's class, where that takes an import worth waiting for.

    Raises:
        ConfigError: The package is missing, or the class has no argument of a name.
    """
    if optimizer.args or optimizer.name not in ("dadapt_adam", "adamw", "sgd"):
        from lora_lab.optimizers import check_optimizer

        check_optimizer(optimizer)


def checked_sample_config(config: DictConfig) -> SampleConfig:
    """Return the settings of ``sample.py`` after all checks that need no heavy import.

    Args:
        config: The composed config, without Hydra's own node.

    Raises:
        ConfigError: One line for each problem.
    """
    typed = to_sample_config(config)
    check_sample(typed)
    _check_paths({key: path for key in ("run", "lora", "png") if (path := getattr(typed, key))})
    _refuse_lines(_sample_problems(typed))
    return typed


def _sample_problems(config: SampleConfig) -> list[str]:
    """Return one line for each file or folder that isn't what its key takes."""
    found = []
    run = Path(config.run).expanduser() if config.run else None
    if run is not None and not any(exists(run / name) for name in RUN_SIGNS):
        found.append(f"run: {run} holds no run or sweep; name a folder that train.py made")
    for key in ("lora", "png", "scores"):
        name = getattr(config, key)
        if name and not isfile(expanduser(name)):
            found.append(f"{key}: {name} is no file; name a file that exists")
    if config.lora and not found and (reason := _not_safetensors(Path(config.lora).expanduser())):
        found.append(f"lora: {config.lora} is not a complete safetensors file ({reason})")
    if config.png and not found:
        from lora_lab.images.png_info import read_recipe

        if read_recipe(Path(config.png).expanduser()) is None:
            found.append(
                f"png: {config.png} can't be drawn again: it is damaged, or not drawn by LoRA Lab"
            )
    for key in ("lora_dir", "wildcards_dir"):
        name = getattr(config.sampling, key)
        if name and not isdir(expanduser(name)):
            found.append(f"sampling.{key}: {name} is no folder; name one that exists")
    if isfile(expanduser(config.output)):
        found.append(f"output: {config.output} is a file; name a folder")
    for item in config.sampling.embeddings:
        if not exists(expanduser(item)):
            found.append(f"sampling.embeddings: {item} does not exist; check the path")
    for item in config.sampling.checkpoints:
        found += _missing("sampling.checkpoints", item)
    return found


def _not_safetensors(path: Path) -> str | None:
    """Why a file can't be read; its header tells, which needs no PyTorch."""
    from safetensors import SafetensorError, safe_open

    try:
        require_regular(path)
        with safe_open(path, framework="numpy"):
            return None
    except (SafetensorError, OSError) as error:
        return one_line(error, 100)


def check_sampling_paths(config: TrainConfig) -> None:
    """Check that the checkpoints which will draw a sweep's grids are there.

    Raises:
        ConfigError: One line for each that isn't.
    """
    checkpoints = config.sampling.checkpoints
    problems = [line for item in checkpoints for line in _missing("sampling.checkpoints", item)]
    if problems:
        raise ConfigError(*problems)


def _check_paths(named: dict[str, str]) -> None:
    _refuse_lines([line for key, item in named.items() for line in _missing(key, item)])


def _refuse_lines(problems: list[str]) -> None:
    if problems:
        raise ConfigError(*problems)


def _missing(key: str, location: str) -> list[str]:
    try:
        if key in CHECKPOINT_KEYS and is_hub_name(location):
            from lora_lab.checkpoint.hub import fetch_folder  # imports PyTorch

            fetch_folder(location)  # now: a sweep would ask for it after hours of training
        elif locate(location).is_file() and key in FOLDER_KEYS:
            return [f"{key}: {location} is a file; name a folder"]
    except LabError as error:
        return [f"{key}: {error}"]
    return []


class CheckBeforeRun(Callback):
    """Ends the command with status 2 before Hydra makes a run folder for wrong settings.

    After a job it frees the memory that the job held.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the composed config of a single run; ``kwargs`` are Hydra's.

        Raises:
            SystemExit: With 2; Hydra would turn any other exception into a warning.
        """
        name = config.hydra.job.config_name
        settings = without_hydra(config)
        try:
            if name == "sample":
                checked_sample_config(settings)
            else:
                checked_train_config(settings)
                refuse_file(Path(config.hydra.run.dir))
        except ConfigError as error:
            for line in str(error).splitlines():
                sys.stderr.write(f"error: {one_line(line)}\n")
            raise SystemExit(2) from error

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Forget what a job leaves: its configs, and tensors that its trainer holds in cycles.

        Python looks for cycles among so many objects too seldom.
        """
        job_return.cfg = job_return.hydra_cfg = None
        gc.collect()


def refuse_file(folder: Path) -> None:
    """Refuse a results folder that is a file.

    Raises:
        ConfigError: There is a file of this name.
    """
    if exists(folder) and not isdir(folder):
        raise ConfigError(f"{folder} is a file; choose another hydra.run.dir or hydra.sweep.dir")
