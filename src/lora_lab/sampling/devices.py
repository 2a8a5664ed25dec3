"""On which device and CPU threads images are drawn."""

from pathlib import Path

import torch

from lora_lab.errors import LabError
from lora_lab.run_folder.record import read_settings
from lora_lab.run_folder.saved_loras import find_rows

DEFAULT_THREADS = 2


def choose_device(name: str) -> torch.device:
    """Where images are drawn.

    Raises:
        LabError: There is no such device.
    """
    present = {"cpu": True, "cuda": torch.cuda.is_available()}
    present["mps"] = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if present["cuda"] else "cpu")
    if not present[name]:
        raise LabError(
            f"sampling.device={name} is not available; "
            f"choose one of auto, {', '.join(key for key in present if present[key])}"
        )
    return torch.device(name)


def set_threads(asked: int | None, folder: Path | None) -> None:
    """Set CPU threads: on others, images differ in their last digits.

    Args:
        asked: How many; 0 leaves PyTorch's own choice, None is the runs' own number.
        folder: Of a run or a sweep; None without one.
    """
    threads = run_threads(folder) if asked is None else asked
    if threads:
        torch.set_num_threads(threads)


def run_threads(folder: Path | None) -> int:
    """CPU threads that the runs of a folder were trained with, and drawn with after a sweep."""
    for run in find_rows(folder).runs if folder is not None else ():
        trainer = read_settings(run.folder).get("trainer")
        if isinstance(trainer, dict) and isinstance(trainer.get("threads"), int):
            return int(trainer["threads"])
    return DEFAULT_THREADS
