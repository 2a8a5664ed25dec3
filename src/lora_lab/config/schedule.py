"""The learning-rate schedule: its settings and their ranges."""

from dataclasses import dataclass

from lora_lab.config.rules import Rule, above, at_least, one_of, or_null, shown

SCHEDULES = ("constant", "linear", "cosine", "cosine_with_restarts", "polynomial", "inverse_sqrt")


@dataclass
class ScheduleConfig:
    """How the learning rate changes over the run."""

    name: str
    """Schedule: constant, linear, cosine, cosine_with_restarts, polynomial or inverse_sqrt."""
    warmup_steps: int
    """Steps in which the learning rate rises from 0; >= 0, at most the steps of the run."""
    warmup_share: float
    """The same as a share of the run, if warmup_steps is 0; >= 0, < 1."""
    power: float
    """Exponent of the polynomial schedule; > 0; 1 is linear."""
    cycles: int
    """How often cosine_with_restarts starts anew at the full rate; >= 1."""
    timescale: int | None
    """Steps until inverse_sqrt begins to fall; >= 1; null: the warm-up, 10000 without one."""


RULES = (
    one_of("name", SCHEDULES),
    at_least("warmup_steps", 0),
    Rule("warmup_share", ">= 0 and < 1, a share of the run", lambda value: 0 <= value < 1),
    above("power", 0),
    at_least("cycles", 1),
    or_null(at_least("timescale", 1)),
)


def problems(schedule: ScheduleConfig) -> list[str]:
    """Return one line for each pair of settings that don't go together."""
    if schedule.warmup_steps and schedule.warmup_share:
        return [
            "schedule.warmup_steps and schedule.warmup_share are both set "
            f"({shown(schedule.warmup_steps)} and {shown(schedule.warmup_share)}); set one to 0"
        ]
    return []
