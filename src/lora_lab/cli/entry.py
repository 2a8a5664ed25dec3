"""From a command line to an exit status: 0 all well, 1 a run failed, 2 a wrong setting.

Hydra composes the config and makes the folders; what it raises is told here in one line each.
"""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig

from hydra_plugins.lora_lab_stacked import StackedLauncher
from hydra_plugins.lora_lab_sweeper import LabSweeper
from lora_lab.cli.config_guard import guarded, refuse_flags, take_permissions
from lora_lab.cli.ending import (
    HEARD,
    end_by_signal,
    ended_by_signals,
    print_any_name,
    tell,
    unforeseen,
)
from lora_lab.cli.help import help_text
from lora_lab.cli.messages import COMPOSITION_ERRORS, explain
from lora_lab.cli.own_conf import own_conf, with_search_path
from lora_lab.cli.quoting import MULTIRUN_FLAGS, quote_texts
from lora_lab.config.sample import SampleConfig
from lora_lab.config.store import register_schemas
from lora_lab.config.train import TrainConfig
from lora_lab.errors import ConfigError, LabError, first_line

SCHEMAS: dict[str, type] = {"train": TrainConfig, "sample": SampleConfig}


def run_command(
    task: Callable[[DictConfig], Any], config_name: str, conf: Path, arguments: list[str]
) -> int:
    """Run one command and return its exit status.

    Args:
        task: What is done with the composed config; an ``Outcome`` it returns may hold an error.
        config_name: ``train`` or ``sample``, the file of ``conf`` to start from.
        conf: The folder of config files.
        arguments: The command line behind the script's name.

    Returns:
        0, 1 (a run failed), 2 (a wrong argument or setting; nothing was started), 130 (Ctrl-C) or
        143 (SIGTERM).
    """
    register_schemas()
    print_any_name()
    with ended_by_signals():
        try:
            return _run(task, config_name, conf.absolute(), arguments)
        except KeyboardInterrupt as stop:
            return end_by_signal(stop)


def _run(
    task: Callable[[DictConfig], Any], config_name: str, conf: Path, arguments: list[str]
) -> int:
    """Run a command as ``run_command`` does; only what a signal raises comes out."""
    schema = SCHEMAS[config_name]
    debug = "debug=true" in [argument.lower() for argument in arguments]
    folders = [conf]
    try:
        arguments, permissions = take_permissions(arguments)
        arguments = quote_texts(arguments, schema)
        own = own_conf(conf)
        folders += [own] if own is not None else []
        arguments = with_search_path(own, arguments)
        with guarded(permissions):
            if {"--help", "-h"} & set(arguments):
                sys.stdout.write(help_text(folders, config_name, schema, arguments))
                return 0
            return _run_hydra(task, config_name, conf, arguments)
    except Exception as error:
        if debug:
            traceback.print_exc()
        if HEARD.number is not None:
            return end_by_signal(error)
        if isinstance(error, LabError):
            tell(str(error).splitlines())
            return 2 if isinstance(error, ConfigError) else 1
        lines = explain(folders, schema, arguments) if isinstance(error, COMPOSITION_ERRORS) else []
        if lines or isinstance(error, HydraException):
            tell(lines or [first_line(error)])
            return 2
        tell([unforeseen(error, debug, "debug=true")])
        return 1


def _run_hydra(
    task: Callable[[DictConfig], Any], config_name: str, conf: Path, arguments: list[str]
) -> int:
    """Let Hydra compose and run; return the exit status of what it ran."""
    Plugins.instance().register(LabSweeper)
    Plugins.instance().register(StackedLauncher)
    outcomes: list[Any] = []

    failures: list[Exception] = []

    def job(config: DictConfig) -> Any:
        try:
            return _keep(task(config), outcomes)
        except Exception as error:
            # Raised after Hydra has ended: it would print the overrides above our own line.
            failures.append(error)
            return None

    sweeping = bool(MULTIRUN_FLAGS & set(arguments))
    refuse_flags(arguments)
    if sweeping and config_name == "sample":
        raise ConfigError(
            "-m is for train.py; rows=<axis> and columns=<axis> draw several values in one grid"
        )
    # Hydra prints tracebacks and exits by itself unless it is told to hand errors on.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv[1:] = arguments
    command = hydra.main(version_base="1.3", config_path=str(conf), config_name=config_name)(job)
    try:
        command()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    if failures:
        raise failures[0]
    return 0 if sweeping else _end_single_run(outcomes)


def _keep(outcome: Any, outcomes: list[Any]) -> Any:
    """Keep what a job returned, and return it.

    A launcher's process gets the job by value and this function by name, so it imports this file
    before it composes a config: the filter of warnings in ``lora_lab_sweeper`` holds there too.
    """
    outcomes.append(outcome)
    return outcome


def _end_single_run(outcomes: list[Any]) -> int:
    """Tell how a single run ended and return the exit status."""
    if not outcomes or outcomes[-1] is None:
        return 0
    outcome = outcomes[-1]
    if outcome.error is None:
        sys.stdout.write(f"{outcome.leaves} are in {outcome.folder}\n")
        return 0
    tell(outcome.error.splitlines())
    return 2 if outcome.refused else 1
