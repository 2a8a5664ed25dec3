"""The end of a sweep: what failed, grids, report, and where it all is."""

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lora_lab.cli.sweep_record import RunEntry
from lora_lab.config import TrainConfig
from lora_lab.errors import LabError, one_line

log = logging.getLogger(__name__)


def finish_sweep(folder: Path, base: TrainConfig, entries: list[RunEntry]) -> bool:
    """Draws the grids, builds the report, tells what failed, and prints the report's path last.

    Args:
        folder: the sweep folder.
        base: settings of the base run.
        entries: the runs and how they ended.

    Returns:
        Whether all went well.
    """
    failed = [entry for entry in entries if entry.error is not None]
    well = not failed
    report: Path | None = None
    if len(failed) < len(entries):
        well &= _attempt("the grids", lambda: _draw(folder, base), base.debug) is not None
        well &= measure_images(folder, base)
        report = _attempt("the report", lambda: _report(folder), base.debug)
        well &= report is not None
        well &= _publish(folder, base)
    for entry in failed:
        sys.stderr.write(f"error: {one_line(f'{entry.name} failed: {entry.error}')}\n")
    sys.stderr.flush()
    if report is not None:
        sys.stdout.write(f"{report}\n")
        sys.stdout.flush()
    return well


def _draw(folder: Path, base: TrainConfig) -> list[Path]:
    import torch

    from lora_lab.sampling.grids.draw_grids import draw_grids, refuse_missing

    if base.trainer.threads:
        # A launcher may have trained in other processes: the same images need the same threads.
        torch.set_num_threads(base.trainer.threads)
    sampling = base.sampling
    if not sampling.checkpoints:
        sampling = replace(sampling, checkpoints=[base.model.checkpoint])
    gallery = draw_grids(folder, sampling)
    refuse_missing(gallery.problems)
    return gallery.grids


def measure_images(folder: Path, base: TrainConfig) -> bool:
    """Scores the metric images; what is missing fails the sweep only if it is required.

    Args:
        folder: the sweep folder.
        base: settings of the base run.

    Returns:
        Whether nothing that is required is missing.
    """
    if not base.metrics.enabled:
        return True

    def score() -> list[str]:
        from lora_lab.metrics.image_scores import score_sweep

        return score_sweep(folder, base)

    problems = _attempt("the image metrics", score, base.debug)
    for problem in problems or ():
        sys.stderr.write(f"warning: image metrics: {one_line(problem)}\n")
    return not base.metrics.required or problems == []


def _report(folder: Path) -> Path:
    from lora_lab.study.report.build import build_report

    return build_report(folder)


def _publish(folder: Path, base: TrainConfig) -> bool:
    """Shows images and verdict in the loggers that the trainings used; whether all went well."""
    if not (base.logger.tensorboard or base.logger.wandb.enabled):
        return True
    from lora_lab.study.report import publish

    well = True
    if base.logger.tensorboard:
        show = partial(publish.publish_to_tensorboard, folder)
        well &= _attempt("TensorBoard's images", lambda: show() is None, base.debug) is not None
    if base.logger.wandb.enabled:
        send = partial(publish.publish_to_wandb, folder, base.logger.wandb)
        well &= _attempt("the W&B report", lambda: send() is None, base.debug) is not None
    return well


def _attempt(name: str, make: Callable[[], Any], debug: bool) -> Any:
    """Returns what was made; None after telling why it couldn't be."""
    try:
        return make()
    except Exception as error:
        if debug:
            log.exception("%s could not be made", name)
        text = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        sys.stderr.write(f"error: {name} could not be made: {one_line(text)}\n")
        return None
