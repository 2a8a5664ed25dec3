"""The sweep and its comparison: settings and their ranges."""

from dataclasses import dataclass

from lora_lab.config.rules import at_least, or_null, text


@dataclass
class StudyConfig:
    """The sweep and its comparison."""

    base_runs: int
    """Runs of the base with seeds seed, seed + 1, ..., which measure the noise floor; >= 2."""
    several_parameters: bool
    """Allow a sweep over the combinations of several parameters; true or false."""
    reuse_from: str | None
    """Folder whose complete runs the sweeps inside it share when all equals; null: no sharing."""


RULES = (
    at_least("base_runs", 2),
    or_null(text("reuse_from")),
)
