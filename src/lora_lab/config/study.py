"""The sweep and its comparison: settings and their ranges."""

from dataclasses import dataclass
from typing import Any

from lora_lab.config.rules import Rule, above, between, or_null, text

MAX_SEED = 2**31 - 1


@dataclass
class StudyConfig:
    """The sweep and its comparison."""

    seeds: Any
    """Seeds that base and values are trained under: a count from seed on, or a list; >= 1."""
    max_seeds: int | None
    """Undecided values get more seeds, up to so many; >= the count of seeds; null: none."""
    early_end: bool
    """Values that are clearly worse than the base at a third of their steps end; true or false."""
    pause: bool
    """Save and stop at a third of the run, as sweeps with early_end do; true or false."""
    margin: float
    """As good as the base: the difference is shown to be below this share of the base; > 0."""
    several_parameters: bool
    """Allow a sweep over the combinations of several parameters; true or false."""
    reuse_from: str | None
    """Folder whose complete runs the sweeps inside it share when all equals; null: no sharing."""


def seeds_of(study: StudyConfig, first: int) -> tuple[int, ...]:
    """Return the seeds that base and values are trained under.

    Args:
        study: Settings that were checked.
        first: The first seed where a count is given.
    """
    if isinstance(study.seeds, int):
        return tuple(range(first, first + study.seeds))
    return tuple(study.seeds)


def further_seeds(study: StudyConfig, first: int) -> tuple[int, ...]:
    """Return the seeds that undecided values may get after the planned ones."""
    planned = seeds_of(study, first)
    count = (study.max_seeds or 0) - len(planned)
    return tuple(range(max(planned) + 1, max(planned) + 1 + max(0, count)))


def _is_seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_SEED


MAX_COUNT = 1000
"""Seeds that are counted up; each is a run of every value."""


def _are_seeds(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(map(_is_seed, value)) and len(set(value)) == len(value)
    return _is_seed(value) and 1 <= value <= MAX_COUNT


RULES = (
    Rule(
        "seeds",
        f"a count from 1 to {MAX_COUNT}, or a list of different seeds from 0 to {MAX_SEED}",
        _are_seeds,
    ),
    or_null(between("max_seeds", 1, MAX_COUNT)),
    above("margin", 0),
    or_null(text("reuse_from")),
)


def problems(study: StudyConfig) -> list[str]:
    """Return one line for each pair of settings that don't go together."""
    if not _are_seeds(study.seeds):
        return []
    count = study.seeds if isinstance(study.seeds, int) else len(study.seeds)
    found = []
    if study.max_seeds is not None and study.max_seeds < count:
        found.append(
            f"study.max_seeds must be >= the {count} of study.seeds or null, got "
            f"{study.max_seeds}; raise it, or lower study.seeds"
        )
    if study.early_end and count < 2:
        found.append(
            f"study.seeds must be >= 2 with study.early_end=true, got {study.seeds}: a value is "
            "judged by what it does under several seeds; raise it, or leave early_end out"
        )
    return found
