"""What is in a run folder already: a run to reuse, one to go on with, or one to leave alone."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lora_lab.config import TrainConfig
from lora_lab.run_folder.record import COMPLETE, config_key, read_facts
from lora_lab.run_folder.resume import other_settings

if TYPE_CHECKING:
    from lora_lab.training.run import SharedInputs

OWN_FILES = (
    *("run.json", "config.yaml", "overrides.yaml", "metrics.csv", "last.ckpt"),
    *("lora", "images", "grids", "tensorboard", "wandb", "sweep.json", "held_out.csv"),
)
"""Names that a run or sweep folder consists of; a run would replace what has one of them."""


@cache
def shared_inputs() -> "SharedInputs":
    """Returns what the runs of this process share: base models and latents."""
    from lora_lab.training.run import SharedInputs

    return SharedInputs()


def is_same_run(folder: Path, config: TrainConfig) -> bool:
    """Whether a folder holds a complete run of the same settings, inputs and code.

    PyTorch is imported only when the settings are the same.

    Raises:
        LabError: the images or the base checkpoint can't be read.
    """
    facts = read_facts(folder)
    if facts is None or facts.get("status") != COMPLETE:
        return False
    if facts.get("config_key") != config_key(config):
        return False
    from lora_lab.training.run import is_reusable

    return is_reusable(folder, config, shared_inputs())


def obstacle(folder: Path, config: TrainConfig) -> str | None:
    """Returns why a run must not go into a folder; None when it may start or go on there.

    Args:
        folder: the run folder, which need not exist and doesn't hold the same complete run.
        config: what would be trained.
    """
    facts = read_facts(folder)
    if facts is None:
        own = [name for name in OWN_FILES if (folder / name).exists()]
        return f"holds {own[0]}, but no run" if own else None
    if config.overwrite:
        return None
    if (difference := other_settings(folder, config, facts)) is not None:
        return difference
    if facts.get("status") == COMPLETE:
        from lora_lab.training.run import input_difference

        found = input_difference(folder, config, shared_inputs())
        return found or "holds this run, complete but without its LoRA file"
    return None


def find_same_run(run_folders: list[Path], config: TrainConfig) -> Path | None:
    """Returns the first of some folders that holds the same complete run.

    Raises:
        LabError: the images or the base checkpoint can't be read.
    """
    return next((folder for folder in run_folders if is_same_run(folder, config)), None)


def runs_inside(folder: Path) -> list[Path]:
    """Returns the run folders of a sweep folder: of a value and a seed, or of a value alone."""
    return sorted(
        path.parent for path in [*folder.glob("*/run.json"), *folder.glob("*/*/run.json")]
    )


def runs_below(root: Path, without: Path) -> list[Path]:
    """Returns the run folders at most three levels below ``root`` and outside of ``without``."""
    records = [path for depth in ("*", "*/*", "*/*/*") for path in root.glob(f"{depth}/run.json")]
    inside = without.resolve()
    return sorted(path.parent for path in records if inside not in path.resolve().parents)
