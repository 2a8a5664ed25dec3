"""Which class stands behind an optimizer's name, and which arguments it gets.

A class's arguments are held against its signature before anything is trained.
"""

import importlib
import inspect
import math
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from lora_lab.config import OptimizerConfig
from lora_lab.config.optimizer import OPTIMIZERS, TAKES
from lora_lab.errors import ConfigError


@dataclass(frozen=True)
class Source:
    """Where an optimizer comes from."""

    path: str
    """Module and class."""
    install: str
    """What to install when it is missing."""
    flat: bool = True
    """Whether one tensor that holds a whole part takes the same steps as the part's own tensors:
    true for what works elementwise, up to sums over all tensors."""
    fixed: tuple[tuple[str, Any], ...] = ()
    """Arguments that are always given."""


SOURCES = {
    "dadapt_adam": Source("dadaptation.DAdaptAdam", "dadaptation"),
    "dadapt_adan": Source("dadaptation.DAdaptAdan", "dadaptation"),
    "dadapt_lion": Source("dadaptation.DAdaptLion", "dadaptation"),
    "dadapt_sgd": Source("dadaptation.DAdaptSGD", "dadaptation"),
    "dadapt_adagrad": Source("dadaptation.DAdaptAdaGrad", "dadaptation"),
    "prodigy": Source("prodigyopt.Prodigy", "prodigyopt"),
    "schedule_free_adamw": Source("schedulefree.AdamWScheduleFree", "schedulefree"),
    "adamw": Source("torch.optim.AdamW", "torch"),
    # blocks of 256 values share a scale in bitsandbytes: a flat tensor has other blocks
    "adamw_8bit": Source("bitsandbytes.optim.AdamW8bit", "bitsandbytes", flat=False),
    # rows and columns of each matrix are what it keeps
    "adafactor": Source("transformers.optimization.Adafactor", "transformers", flat=False),
    "lion": Source("lion_pytorch.Lion", "lion-pytorch"),
    "sgd": Source("torch.optim.SGD", "torch"),
}


def source_of(config: OptimizerConfig) -> Source:
    """Where the optimizer of a config comes from; a user's class keeps its tensors apart.

    Raises:
        ConfigError: An unknown name, or no class.
    """
    if config.name == "custom" and config._target_ is not None:
        return Source(config._target_, config._target_.partition(".")[0], flat=False)
    if config.name not in SOURCES:
        raise ConfigError(
            f"optimizer.name must be one of {', '.join(OPTIMIZERS)}, got {config.name!r}"
        )
    return SOURCES[config.name]


def find_class(config: OptimizerConfig) -> type[Optimizer]:
    """The class that a config names.

    Raises:
        ConfigError: Its package isn't installed, has no such class, or it is no optimizer.
    """
    source = source_of(config)
    asked = (
        f"optimizer._target_={source.path}"
        if config.name == "custom"
        else f"optimizer={config.name}"
    )
    module, _, name = source.path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{asked} needs the package {source.install}, which can't be imported "
            f"({' '.join(str(error).split())}): pip install {source.install}"
        ) from error
    except AttributeError:
        raise ConfigError(
            f"{asked}: {module} has no class {name}; look at its documentation"
        ) from None
    if not (isinstance(found, type) and issubclass(found, Optimizer)):
        raise ConfigError(f"{asked} must name a subclass of torch.optim.Optimizer, got {found!r}")
    return found


def arguments(config: OptimizerConfig) -> dict[str, Any]:
    """The keyword arguments that a config gives to its class."""
    given: dict[str, Any] = {"lr": config.lr}
    named = TAKES[config.name].split() if config.name in TAKES else _set_keys(config)
    for key in named:
        value = getattr(config, key)
        if key == "betas":
            value = tuple(value)
        if key == "growth_rate" and value is None:
            value = math.inf  # null means without limit
        given[key] = value
    if config.name == "adafactor" and config.args.get("relative_step"):
        given["lr"] = None  # it finds its own and refuses another
    lists = {key: tuple(v) if isinstance(v, list) else v for key, v in config.args.items()}
    return given | lists


def check_optimizer(config: OptimizerConfig) -> None:
    """Holds a config's arguments against the signature of its class; nothing is built.

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
            rest = ", ".join(allowed)
            problems.append(f"{key}: {kind.__name__} has no argument {name}; it has {rest}")
    if "params" in config.args:
        problems.append("optimizer.args.params: the LoRA's tensors are given by the trainer")
    if problems:
        raise ConfigError("\n".join(problems))


def _set_keys(config: OptimizerConfig) -> list[str]:
    """The settings that a user's class is given: those that aren't null."""
    keys = dict.fromkeys(key for names in TAKES.values() for key in names.split())
    return [key for key in keys if getattr(config, key) is not None]
