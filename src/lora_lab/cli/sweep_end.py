"""The end of a sweep: images, grids, what failed, the report, and where it all is.

Images are drawn and scored by the launcher's workers; here they are put together, without a base
model and without a GPU.
"""

import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_lab.cli.ending import HEARD, tell_report
from lora_lab.cli.image_jobs import RunImages, image_settings
from lora_lab.cli.sweep_record import RunEntry
from lora_lab.config import TrainConfig
from lora_lab.errors import LabError, one_line

if TYPE_CHECKING:
    from lora_lab.sampling.grids.draw_grids import GridDrawer
    from lora_lab.study.report.build import BuiltReport

log = logging.getLogger(__name__)

Launch = Callable[[list[str]], list["RunImages | str"]]
"""Draws and scores the images of some runs, named by their folder inside the sweep folder, where
the sweep's runs are trained; gives back what came of each, or why its job came to no end."""


def finish_sweep(folder: Path, base: TrainConfig, entries: list[RunEntry], launch: Launch) -> bool:
    """Have the images drawn, write grids and report; print what it says first, and its path last.

    Args:
        folder: The sweep folder.
        base: Settings of the base run.
        entries: The runs and how they ended.
        launch: Has the images drawn and scored.

    Returns:
        Whether all went well.
    """
    failed = [entry for entry in entries if entry.error is not None]
    well = not failed
    report: BuiltReport | None = None
    if len(failed) < len(entries):
        well &= _make_grids(folder, base, launch)
        report = _attempt("the report", lambda: _report(folder), base.debug)
        well &= report is not None
        well &= _publish(folder, base)
    for entry in failed:
        sys.stderr.write(f"error: {one_line(f'{entry.name} failed: {entry.error}')}\n")
    sys.stderr.flush()
    if report is not None:
        tell_report(report.sentence, report.page)
    return well


@dataclass(frozen=True)
class SweepImages:
    """What came of the images of a sweep."""

    grids: "GridDrawer | None"
    """What puts them into grids; None where they can't be planned."""
    done: list[RunImages]
    lost: dict[str, str]
    """Folder of a run, relative to the sweep folder -> why its job came to no end."""


def launch_images(folder: Path, base: TrainConfig, launch: Launch) -> SweepImages:
    """Have the images of all runs drawn and scored.

    Args:
        folder: The sweep folder.
        base: Settings of the base run.
        launch: Has the images of some runs drawn and scored.
    """
    folder = folder.absolute()  # as the workers name it
    grids = _attempt("the grids", lambda: _plan_grids(folder, base), base.debug)
    runs = [os.path.relpath(run, folder) for run in (grids.runs() if grids is not None else ())]
    if base.metrics.enabled:
        runs += _attempt("the image metrics", lambda: _scored_runs(folder), base.debug) or []
    asked = list(dict.fromkeys(Path(run).as_posix() for run in runs))
    answers = dict(zip(asked, launch(asked), strict=True)) if asked else {}
    done = [answer for answer in answers.values() if not isinstance(answer, str)]
    lost = {run: answer for run, answer in answers.items() if isinstance(answer, str)}
    return SweepImages(grids, done, lost)


def _make_grids(folder: Path, base: TrainConfig, launch: Launch) -> bool:
    """Have all images drawn and scored, write the grids, and tell what is missing.

    Returns:
        Whether nothing that is required is missing.
    """
    images = launch_images(folder, base, launch)
    well = images.grids is not None and not images.lost
    for run, reason in images.lost.items():
        sys.stderr.write(f"error: {one_line(f'the images of {run} are missing: {reason}')}\n")
    if images.grids is not None and images.grids.config.grids:
        write = partial(_write_grids, folder.absolute(), images.grids, images.done)
        well &= _attempt("the grids", write, base.debug) is not None
    return well & _tell_unscored(base, images.done, bool(images.lost))


def _plan_grids(folder: Path, base: TrainConfig) -> "GridDrawer":
    from lora_lab.sampling.grids.draw_grids import plan_grids

    return plan_grids(folder, image_settings(base))


def _scored_runs(folder: Path) -> list[str]:
    from lora_lab.metrics.image_scores import scorable

    return [os.path.relpath(run.folder, folder) for run in scorable(folder)]


def _write_grids(folder: Path, grids: "GridDrawer", done: "list[RunImages]") -> list[Path]:
    from lora_lab.sampling.grids.draw_grids import refuse_missing

    for images in done:
        if images.drawn is not None:
            grids.drawn.add(images.drawn)
    drawn = grids.write_all(folder)
    refuse_missing(drawn.problems)
    return drawn.grids


def _tell_unscored(base: TrainConfig, done: "list[RunImages]", lost: bool) -> bool:
    """Tell what scores are missing; that fails the sweep only if they are required."""
    reasons = dict.fromkeys(images.not_scored for images in done if images.not_scored)
    for reason in reasons:
        sys.stderr.write(f"error: the image metrics could not be made: {one_line(reason)}\n")
    problems = dict.fromkeys(line for images in done for line in images.unscored)
    for problem in problems:
        sys.stderr.write(f"warning: image metrics: {one_line(problem)}\n")
    missing = bool(reasons or problems or lost)
    return not (base.metrics.enabled and base.metrics.required and missing)


def _report(folder: Path) -> "BuiltReport":
    from lora_lab.study.report.build import build_report

    return build_report(folder)


def _publish(folder: Path, base: TrainConfig) -> bool:
    """Show images and verdict in the loggers that the trainings used; whether all went well."""
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
    """Return what was made; None after telling why it couldn't be."""
    try:
        return make()
    except Exception as error:
        HEARD.again()
        if debug:
            log.exception("%s could not be made", name)
        text = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        sys.stderr.write(f"error: {name} could not be made: {one_line(text)}\n")
        return None
