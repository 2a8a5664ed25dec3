"""Which class stands behind an optimizer's name, and which arguments it gets.

A class's arguments are held against its signature before anything is trained.
"""

import importlib
import inspect
import math
from typing import Any

import torch

from lora_lab.config import OptimizerConfig
from lora_lab.config.optimizer import OPTIMIZERS, TABLE, Optimizer
from lora_lab.errors import ConfigError, clipped, offered


def entry_of(config: OptimizerConfig) -> Optimizer:
    """What is known of the optimizer of a config; a user's class keeps its tensors apart.

    Raises:
        ConfigError: An unknown name, or no class.
    """
    if config.name == "custom" and config._target_ is not None:
        package = config._target_.partition(".")[0]
        return Optimizer(config._target_, package, "", "", {}, "", "", flat=False)
    if config.name not in TABLE:
        raise ConfigError(
            f"optimizer.name must be one of {offered(config.name, OPTIMIZERS)}, got "
            f"{clipped(repr(config.name))}"
        )
    return TABLE[config.name]


def find_class(config: OptimizerConfig) -> type[torch.optim.Optimizer]:
    """The class that a config names.

    Raises:
        ConfigError: Its package isn't installed, has no such class, or it is no optimizer.
    """
    entry = entry_of(config)
    asked = (
        f"optimizer._target_={entry.path}"
        if config.name == "custom"
        else f"optimizer={config.name}"
    )
    module, _, name = entry.path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{asked} needs the package {entry.install}, which can't be imported "
            f"({' '.join(str(error).split())}): pip install {entry.install}"
        ) from error
    except AttributeError:
        raise ConfigError(
            f"{asked}: {module} has no class {name}; look at its documentation"
        ) from None
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise ConfigError(f"{asked} must name a subclass of torch.optim.Optimizer, got {found!r}")
    return found


def arguments(config: OptimizerConfig) -> dict[str, Any]:
    """The keyword arguments that a config gives to its class."""
    given: dict[str, Any] = {"lr": config.lr}
    named = TABLE[config.name].takes.split() if config.name in TABLE else _set_keys(config)
    for key in named:
        value = getattr(config, key)
        if key == "betas":
            value = tuple(value)
        if key == "growth_rate" and value is None:
            value = math.inf  # null means without limit
        given[key] = value
    if config.args.get("relative_step"):
        given["lr"] = None  # it finds its own and refuses another
    lists = {key: tuple(v) if isinstance(v, list) else v for key, v in config.args.items()}
    return given | lists


def described(config: OptimizerConfig) -> str:
    """Class and arguments of an optimizer, as sd-scripts writes them into a LoRA file.

    Raises:
        ConfigError: The class can't be found.
    """
    kind = find_class(config)
    given = {key: value for key, value in arguments(config).items() if key != "lr"}
    told = ",".join(f"{key}={value}" for key, value in given.items())
    name = f"{kind.__module__}.{kind.__qualname__}"
    return f"{name}({told})" if told else name


def check_optimizer(config: OptimizerConfig) -> None:
    """Hold a config's arguments against the signature of its class; nothing is built.

    Raises:
        ConfigError: The class can't be found, or has no argument of a name; names the allowed ones.
    """
    kind = find_class(config)
    signature = inspect.signature(kind)
    allowed = [name for name in signature.parameters if name not in ("params", "self")]
    if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        allowed = [*allowed, *arguments(config)]  # it takes any name
    problems = []
    for name in arguments(config):
        if name not in allowed:
            key = f"optimizer.args.{name}" if name in config.args else f"optimizer.{name}"
            has = f"{kind.__name__} has no argument {clipped(name)}; it has "
            problems.append(f"{clipped(key)}: {has}{offered(name, allowed)}")
    if "params" in config.args:
        problems.append("optimizer.args.params: the LoRA's tensors are given by the trainer")
    if problems:
        raise ConfigError(*problems)


def _set_keys(config: OptimizerConfig) -> list[str]:
    """The settings that a user's class is given: those that aren't null."""
    keys = dict.fromkeys(key for entry in TABLE.values() for key in entry.takes.split())
    return [key for key in keys if getattr(config, key) is not None]
