"""Ranges of all settings, checked at once before anything is loaded.

A section's module holds its ranges as ``RULES`` and, where settings depend on one another, a
function ``problems``.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from lora_lab.config import (
    data,
    logger,
    metrics,
    model,
    network,
    objective,
    optimizer,
    sample,
    sampling,
    schedule,
    study,
    train,
    trainer,
)
from lora_lab.config.rules import broken
from lora_lab.config.sample import SampleConfig
from lora_lab.config.train import TrainConfig
from lora_lab.errors import ConfigError

SECTIONS: dict[str, ModuleType] = {
    "model": model,
    "data": data,
    "network": network,
    "optimizer": optimizer,
    "schedule": schedule,
    "objective": objective,
    "trainer": trainer,
    "logger": logger,
    "study": study,
    "sampling": sampling,
    "metrics": metrics,
}
COMBINATIONS: dict[str, Callable[[Any], list[str]]] = {
    "data": data.problems,
    "network": network.problems,
    "objective": objective.problems,
    "optimizer": optimizer.problems,
    "sampling": sampling.problems,
    "metrics": metrics.problems,
    "schedule": schedule.problems,
    "study": study.problems,
    "trainer": trainer.problems,
}
"""Checks of settings that depend on one another, by section."""


def check(config: TrainConfig) -> None:
    """Check the ranges of all settings of a training run.

    Raises:
        ConfigError: One line for each setting out of range.
    """
    found = [line for name in SECTIONS for line in _section_problems(name, getattr(config, name))]
    _refuse(found + broken(config, train.RULES) + train.problems(config))


def check_sample(config: SampleConfig) -> None:
    """Check the ranges of all settings of ``sample.py``.

    Raises:
        ConfigError: One line for each setting out of range.
    """
    found = broken(config, sample.RULES) + sample.problems(config)
    _refuse(found + _section_problems("sampling", config.sampling))


def _section_problems(name: str, values: Any) -> list[str]:
    """Return one line for each range and each combination of settings that doesn't hold."""
    found = broken(values, SECTIONS[name].RULES, f"{name}.")
    return found + (COMBINATIONS[name](values) if name in COMBINATIONS else [])


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ConfigError(*problems)
