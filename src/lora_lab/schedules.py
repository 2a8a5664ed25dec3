"""Learning rate schedules: factors that multiply the optimizer's rate at each step.

With DAdaptAdam and Prodigy the factor multiplies lr = 1, so it shapes d · lr.
"""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lora_lab.config import ScheduleConfig
from lora_lab.errors import ConfigError

NAMES = ("cosine", "constant", "linear", "polynomial")


def factor(name: str, step: int, total_steps: int, warmup_steps: int, power: float) -> float:
    """The factor of the learning rate in a step.

    With warm-up the factor rises linearly from 0 over ``warmup_steps``; then, with p the share of
    the remaining steps that is done: cosine (1 + cos πp) / 2 (SGDR, arXiv 1608.03983, equation 5
    without restarts), constant 1, linear 1 - p, polynomial (1 - p)**power.

    Args:
        name: One of ``NAMES``.
        step: Steps done before this one, from 0.
        total_steps: Steps of the whole run.
        warmup_steps: Steps of the warm-up.
        power: The polynomial's exponent.

    Raises:
        ConfigError: Another name.
    """
    if name not in NAMES:
        raise ConfigError(f"schedule.name must be one of {', '.join(NAMES)}, got {name!r}")
    if step < warmup_steps:
        return step / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    if name == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    if name == "linear":
        return 1.0 - progress
    if name == "polynomial":
        return (1.0 - progress) ** power
    return 1.0


def build_schedule(optimizer: Optimizer, config: ScheduleConfig, total_steps: int) -> LambdaLR:
    """A LambdaLR over all parameter groups that applies ``factor`` after each optimizer step."""
    return LambdaLR(
        optimizer,
        lambda step: factor(config.name, step, total_steps, config.warmup_steps, config.power),
    )
