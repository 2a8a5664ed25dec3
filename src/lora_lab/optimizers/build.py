"""Optimizers, and the learning rate that is at work in each of their steps.

Every optimizer here works elementwise, up to sums over all of its tensors. So a group may be handed
over as one flat tensor (network.py does), which saves most of the time that DAdaptAdam and Prodigy
lose in two ``.item()`` calls for every tensor.
"""

import contextlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from lora_lab.config import OptimizerConfig
from lora_lab.errors import ConfigError

NAMES = ("dadapt_adam", "prodigy", "adamw")


@dataclass(frozen=True)
class Rates:
    """The rates of one optimizer step, read before the step is taken."""

    d: float | None
    """The estimate of the distance to the solution; None for an optimizer that has none."""
    dlr: dict[str, float]
    """d · lr of each parameter group, times the group's layer_scale; lr where there is no d."""


def build_optimizer(groups: dict[str, list[Parameter]], config: OptimizerConfig) -> Optimizer:
    """The optimizer that the config names, with one parameter group for each part of the network.

    Args:
        groups: The trainable tensors by part, ``unet`` or ``text_encoder``; empty parts are left
            out.
        config: Its values; ``text_encoder_lr`` is a factor on the text encoder's rate.

    Raises:
        ConfigError: An unknown name, or a setting that the optimizer can't honour.
    """
    named = [
        {"params": parameters, "name": name} for name, parameters in groups.items() if parameters
    ]
    if config.name == "dadapt_adam":
        return _dadapt_adam(named, config)
    if config.name == "prodigy":
        return _prodigy(named, config)
    if config.name == "adamw":
        return _adamw(named, config)
    raise ConfigError(f"optimizer.name must be one of {', '.join(NAMES)}, got {config.name!r}")


def step_rates(optimizer: Optimizer) -> Rates:
    """The rates that the next ``optimizer.step()`` will use; call it right before that step.

    D-Adaptation (arXiv 2301.07733, algorithm 5) and Prodigy (arXiv 2306.06101) both step with the d
    of the step before. Adam's bias correction, where it is on, isn't part of d · lr, as in kohya's
    logs: it is the same for every run.
    """
    first = optimizer.param_groups[0]
    d = float(first["d"]) if "d" in first else None
    return Rates(d, {group["name"]: _group_rate(group) for group in optimizer.param_groups})


def _group_rate(group: dict) -> float:
    """The rate d · lr · layer_scale of one group, with 1 for what the optimizer doesn't have."""
    rate = float(group["lr"])
    for key in ("d", "layer_scale"):
        if key in group:
            rate *= float(group[key])
    return rate


def _with_own_d(
    kind: Callable[..., Optimizer], groups: list[dict], config: OptimizerConfig
) -> Optimizer:
    """An optimizer that finds d by itself: DAdaptAdam and Prodigy take the same arguments."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints "Using decoupled weight decay"
        return kind(
            groups,
            lr=config.lr,
            betas=(config.betas[0], config.betas[1]),
            eps=config.eps,
            weight_decay=config.weight_decay,
            decouple=config.decouple,
            use_bias_correction=config.use_bias_correction,
            d0=config.d0,
            growth_rate=_growth_rate(config),
        )


def _dadapt_adam(groups: list[dict], config: OptimizerConfig) -> Optimizer:
    """DAdaptAdam. Groups must share one lr (its step raises), so the factor is a layer_scale."""
    from dadaptation import DAdaptAdam

    for group in groups:
        group["layer_scale"] = config.text_encoder_lr if group["name"] == "text_encoder" else 1.0
    return _with_own_d(DAdaptAdam, groups, config)


def _prodigy(groups: list[dict], config: OptimizerConfig) -> Optimizer:
    """Prodigy, where prodigyopt is installed."""
    try:
        from prodigyopt import Prodigy
    except ImportError as error:
        raise ConfigError(
            "optimizer=prodigy needs the package prodigyopt: pip install prodigyopt"
        ) from error
    if config.text_encoder_lr != 1.0 and any(g["name"] == "text_encoder" for g in groups):
        raise ConfigError(
            f"optimizer.text_encoder_lr must be 1 with optimizer=prodigy, got "
            f"{config.text_encoder_lr:g}: Prodigy has one rate for all groups, use dadapt_adam"
        )
    return _with_own_d(Prodigy, groups, config)


def _adamw(groups: list[dict], config: OptimizerConfig) -> Optimizer:
    """PyTorch's AdamW, fused: one pass over each tensor."""
    for group in groups:
        factor = config.text_encoder_lr if group["name"] == "text_encoder" else 1.0
        group["lr"] = config.lr * factor
    return torch.optim.AdamW(
        groups,
        lr=config.lr,
        betas=(config.betas[0], config.betas[1]),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )


def _growth_rate(config: OptimizerConfig) -> float:
    """The factor by which d may grow in one step; None in the config means without limit."""
    return math.inf if config.growth_rate is None else config.growth_rate
