"""choice.json in a run folder: which of its LoRAs to use, at which weight, and what that gives."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lora_lab.files import read_json, write_json

CHOICE_FILE = "choice.json"


@dataclass(frozen=True)
class Choice:
    """The LoRA of a run that scores best on the prompts for choosing."""

    step: int
    weight: float
    rank: float
    """Mean over the metrics of its rank among the checkpoints, 0 the worst, 1 the best."""
    chosen: dict[str, float] = field(default_factory=dict)
    """Metric -> mean on the other prompts, those of the report."""
    final: dict[str, float] = field(default_factory=dict)
    """The same of the final LoRA at weight 1."""


def write_choice(path: Path, choice: Choice) -> None:
    """Write a choice; figures that weren't measured are left out.

    Raises:
        LabError: The file can't be written.
    """
    content = asdict(choice)
    for name in ("chosen", "final"):
        content[name] = {k: v for k, v in content[name].items() if math.isfinite(v)}
    write_json(path, content)


def read_choice(path: Path) -> Choice | None:
    """Read a choice; None when none was made or the file is damaged."""
    try:
        content = read_json(path)
        figures = {
            name: {str(key): float(value) for key, value in content[name].items()}
            for name in ("chosen", "final")
        }
        step, weight, rank = content["step"], content["weight"], content["rank"]
        return Choice(int(step), float(weight), float(rank), **figures)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
