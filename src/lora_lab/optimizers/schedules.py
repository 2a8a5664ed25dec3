"""Learning rate schedules: factors that multiply the optimizer's rate at each step.

With the D-Adaptation family and Prodigy the factor multiplies lr = 1, so it shapes d · lr.
"""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lora_lab.config import ScheduleConfig
from lora_lab.config.schedule import SCHEDULES
from lora_lab.errors import ConfigError

NO_TIMESCALE = 10_000
"""Steps until inverse_sqrt falls to 1 / sqrt(2) when there is neither a warm-up nor a timescale."""


def factor(config: ScheduleConfig, step: int, total_steps: int) -> float:
    """The factor of the learning rate in a step.

    With warm-up the factor rises linearly from 0. Then, with p the share of the remaining steps
    that is done: cosine (1 + cos πp) / 2 (SGDR, arXiv 1608.03983, equation 5 without restarts),
    cosine_with_restarts the same with p · cycles modulo 1, constant 1, linear 1 - p, polynomial
    (1 - p)**power. inverse_sqrt is sqrt(timescale / (timescale + steps since the warm-up)), which
    after a warm-up of the same length is the schedule of arXiv 1706.03762, section 5.3.

    Args:
        config: Which schedule.
        step: Steps done before this one, from 0.
        total_steps: Steps of the whole run.

    Raises:
        ConfigError: Another name.
    """
    name, warmup = config.name, warmup_steps(config, total_steps)
    if name not in SCHEDULES:
        raise ConfigError(f"schedule.name must be one of {', '.join(SCHEDULES)}, got {name!r}")
    if step < warmup:
        return step / warmup
    if name == "inverse_sqrt":
        timescale = config.timescale or warmup or NO_TIMESCALE
        return math.sqrt(timescale / (timescale + step - warmup))
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    if name == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    if name == "cosine_with_restarts":
        within = (progress * config.cycles) % 1.0 if progress < 1.0 else 1.0
        return 0.5 * (1.0 + math.cos(math.pi * within))
    if name == "linear":
        return 1.0 - progress
    if name == "polynomial":
        return (1.0 - progress) ** config.power
    return 1.0


def warmup_steps(config: ScheduleConfig, total_steps: int) -> int:
    """Steps of the warm-up, given as such, or as a share of the run cut to whole steps as kohya."""
    return config.warmup_steps or int(config.warmup_share * total_steps)


def check_schedule(config: ScheduleConfig, total_steps: int) -> None:
    """Hold a schedule against the length of the run.

    Raises:
        ConfigError: The warm-up is longer than the run.
    """
    if config.warmup_steps > total_steps:
        raise ConfigError(
            f"schedule.warmup_steps must be at most {total_steps}, the steps of this run, got "
            f"{config.warmup_steps}; lower it, or set schedule.warmup_share instead"
        )


def build_schedule(optimizer: Optimizer, config: ScheduleConfig, total_steps: int) -> LambdaLR:
    """A LambdaLR over all parameter groups that applies ``factor`` after each optimizer step."""
    return LambdaLR(optimizer, lambda step: factor(config, step, total_steps))
