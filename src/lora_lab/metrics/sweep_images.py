"""What `python -m lora_lab.study` draws where it is asked to: metric images and checkpoints."""

import logging
from pathlib import Path

import torch

from lora_lab.config import TrainConfig, read_config
from lora_lab.errors import LabError
from lora_lab.metrics.checkpoint_choice import choose_checkpoints
from lora_lab.metrics.image_scores import score_sweep
from lora_lab.run_folder.saved_loras import find_rows

log = logging.getLogger(__name__)


def draw_for_study(folder: Path, metrics: bool, choose: bool) -> None:
    """Draw and score what a report needs beside what a sweep left.

    Args:
        folder: The sweep folder.
        metrics: Score the metric images of every run.
        choose: Choose a checkpoint and a weight for every run.

    Raises:
        LabError: The settings of the base can't be read, or nothing can be drawn with them.
    """
    if not metrics and not choose:
        return
    config = base_settings(folder)
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    problems = choose_checkpoints(folder, config) if choose else score_sweep(folder, config)
    for problem in problems:
        log.warning("%s", problem)


def base_settings(folder: Path) -> TrainConfig:
    """Settings of the first base run that was trained to its end.

    Raises:
        LabError: There is none, or its config.yaml is of another version or damaged.
    """
    runs = [run for run in find_rows(folder).runs if run.is_base and run.saves and not run.problem]
    if not runs:
        raise LabError(f"{folder} holds no base run that was trained to its end")
    return read_config(runs[0].folder / "config.yaml")
