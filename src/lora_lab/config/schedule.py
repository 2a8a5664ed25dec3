"""The learning-rate schedule: its settings and their ranges."""

from dataclasses import dataclass

from lora_lab.config.rules import above, at_least, one_of

SCHEDULES = ("cosine", "constant", "linear", "polynomial")


@dataclass
class ScheduleConfig:
    """How the learning rate changes over the run."""

    name: str
    """Schedule: cosine, constant, linear or polynomial; chosen by schedule=<name>."""
    warmup_steps: int
    """Steps in which the learning rate rises from 0; >= 0."""
    power: float
    """Exponent of the polynomial schedule; > 0; 1 is linear."""


RULES = (
    one_of("name", SCHEDULES),
    at_least("warmup_steps", 0),
    above("power", 0),
)
