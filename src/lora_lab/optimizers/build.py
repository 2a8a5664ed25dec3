"""Builds the optimizer over the network's tensors, and reads the rates of its steps.

Most optimizers here work elementwise, up to sums over all of their tensors. So a group may be
handed over as one flat tensor (network/flat.py does), which saves most of the time that the
D-Adaptation family and Prodigy lose in two ``.item()`` calls for every tensor. DAdaptAdam, which is
the base's, has a step of our own without such calls (dadapt_adam.py).
"""

import contextlib
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from lora_lab.config import OptimizerConfig
from lora_lab.errors import ConfigError
from lora_lab.optimizers.classes import arguments, check_optimizer, entry_of, find_class
from lora_lab.optimizers.dadapt_adam import on_device


@dataclass(frozen=True)
class Rates:
    """The rates of one optimizer step, taken before the step.

    A tensor of one number is on the device: a host that reads it waits for the device.
    """

    d: float | Tensor | None
    """The estimate of the distance to the solution; None for an optimizer that has none."""
    dlr: dict[str, float | Tensor]
    """d · lr of each parameter group, times the group's layer_scale; lr where there is no d."""


@runtime_checkable
class Averaging(Protocol):
    """An optimizer whose result is an average of the weights, as in schedule-free training."""

    def train(self) -> None:
        """Put the weights at which gradients are taken into the tensors."""

    def eval(self) -> None:
        """Put the averaged weights into the tensors."""


def build_optimizer(
    groups: dict[str, list[Parameter]], config: OptimizerConfig, *, fused: bool = True
) -> Optimizer:
    """The optimizer that the config names, with one parameter group for each part of the network.

    Args:
        groups: The trainable tensors by part, ``unet`` or ``text_encoder``; empty parts are left
            out.
        config: Its values; ``text_encoder_lr`` is a factor on the text encoder's rate.
        fused: Whether AdamW may be PyTorch's fused one, which unscales fp16 gradients by itself.

    Raises:
        ConfigError: An unknown name, or a setting that the optimizer can't honour.
    """
    check_optimizer(config)
    named: list[dict[str, Any]] = [
        {"params": parameters, "name": name} for name, parameters in groups.items() if parameters
    ]
    _set_rates(named, config)
    _refuse_cpu(groups, config)
    given = arguments(config)
    if config.name == "adamw" and "fused" not in config.args:
        given["fused"] = fused  # one pass over each tensor
    kind = find_class(config)
    if config.name == "dadapt_adam":
        kind = on_device(kind)
    with contextlib.redirect_stdout(io.StringIO()):  # "Using decoupled weight decay"
        try:
            optimizer = kind(named, **given)
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(
                f"optimizer={config.name} refuses its arguments "
                f"({', '.join(f'{k}={v}' for k, v in given.items())}): {error}"
            ) from error
    for group in optimizer.param_groups:
        if group["lr"] is None:
            group["lr"] = 1.0  # not read by the optimizer; the schedule multiplies it
    built: object = optimizer
    if isinstance(built, Averaging):
        built.train()
    return optimizer


@contextlib.contextmanager
def averaged_weights(optimizer: Optimizer | None) -> Iterator[None]:
    """The weights that are the optimizer's result stand in the tensors while the block runs.

    For schedule-free optimizers that is the average; for others nothing changes. Afterwards the
    tensors hold the very bytes that they held before, so looking never changes training.
    """
    averaging: object = optimizer
    if optimizer is None or not isinstance(averaging, Averaging):
        yield
        return
    tensors = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    kept = [tensor.detach().clone() for tensor in tensors]
    averaging.eval()
    try:
        yield
    finally:
        averaging.train()
        with torch.no_grad():
            for tensor, value in zip(tensors, kept, strict=True):
                tensor.copy_(value)


def step_rates(optimizer: Optimizer) -> Rates:
    """The rates that the next ``optimizer.step()`` will use; call it right before that step.

    D-Adaptation (arXiv 2301.07733, algorithm 5) and Prodigy (arXiv 2306.06101) both step with the d
    of the step before. Adam's bias correction, where it is on, isn't part of d · lr, as in kohya's
    logs: it is the same for every run.
    """
    return Rates(
        optimizer.param_groups[0].get("d"),
        {group["name"]: _group_rate(optimizer, group) for group in optimizer.param_groups},
    )


def _group_rate(optimizer: Optimizer, group: dict) -> float | Tensor:
    """The rate d · lr · layer_scale of one group, with 1 for what the optimizer doesn't have."""
    rate: float | Tensor = float(group["lr"])
    for key in ("d", "layer_scale"):
        if key in group:
            rate = rate * group[key]
    if group.get("relative_step"):
        return rate * _relative_step(optimizer, group)
    return rate


def _relative_step(optimizer: Optimizer, group: dict) -> float:
    """Adafactor's own rate in the next step, arXiv 1804.04235, section 8, without its scale."""
    state = optimizer.state[group["params"][0]]
    step = 1 + (int(state["step"]) if "step" in state else 0)
    return min(1e-6 * step if group["warmup_init"] else 1e-2, 1.0 / math.sqrt(step))


def _set_rates(groups: list[dict[str, Any]], config: OptimizerConfig) -> None:
    """Slow the text encoder down by its factor, in the way that the optimizer has for it.

    DAdaptAdam's groups must share one lr (its step raises), so there the factor is a layer_scale.

    Raises:
        ConfigError: The optimizer has one rate for all groups.
    """
    factor, entry = config.text_encoder_lr, entry_of(config)
    one_rate = entry.one_rate or config.args.get("relative_step")
    for group in groups:
        mine = factor if group["name"] == "text_encoder" else 1.0
        if entry.layer_scale:
            group["layer_scale"] = mine
        elif mine != 1.0 and one_rate:
            raise ConfigError(
                f"optimizer.text_encoder_lr must be 1 with optimizer={config.name}, got "
                f"{factor:g}: it has one rate for all parts, use dadapt_adam"
            )
        elif not one_rate:
            group["lr"] = config.lr * mine


def _refuse_cpu(groups: dict[str, list[Parameter]], config: OptimizerConfig) -> None:
    tensors = [tensor for parameters in groups.values() for tensor in parameters]
    if entry_of(config).needs_gpu and any(tensor.device.type == "cpu" for tensor in tensors):
        raise ConfigError(
            f"optimizer={config.name} needs a GPU, got the CPU: choose optimizer=adamw"
        )
