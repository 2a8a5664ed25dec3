"""The images and the verdict of a sweep on Weights & Biases and in TensorBoard.

On Weights & Biases the sweep is one group. Beside the trainings stand a job `sample` for each run,
whose images have the same keys in all and one step each save, so that the media panels compare
them, and one job `report` with the verdicts, one row per value and metric.
"""

import csv
import io
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_lab.config import WandbConfig
from lora_lab.loggers.build import LORA_FILE, add_images, log_view, lora_name
from lora_lab.loggers.wandb_run import Job, LoggedImage, WandbRun, start
from lora_lab.run_folder.saved_loras import find_saves
from lora_lab.study.judge.verdict import Judged, Study, judge
from lora_lab.study.read.load import load_sweep
from lora_lab.study.report.build import FOLDER
from lora_lab.study.report.comparison import comparison_text, verdicts_text
from lora_lab.study.report.headline import headline
from lora_lab.study.report.run_images import RunImage, run_images

log = logging.getLogger(__name__)
TABLE = ("value", "step", "prompt", "seed", "base", "image")
SUFFIX = ".images"
"""Ends the name of TensorBoard's file with the images, which is written anew each time."""
MAX_NAME = 90
"""Letters of a parameter with its value in the name of a job."""
ARTIFACT_FILES = ("index.html", "report.md", "comparison.csv", "verdicts.csv")


def publish_to_wandb(sweep_dir: Path, settings: WandbConfig) -> None:
    """Log what a sweep left on disk: a sample job for each run, then the report job.

    Args:
        sweep_dir: The folder that holds sweep.json and report/.
        settings: Project, group and mode of Weights & Biases.

    Raises:
        ConfigError: There is no sweep in the folder.
        LabError: Weights & Biases can't be started.
    """
    study = judge(load_sweep(sweep_dir))
    group = settings.group or sweep_dir.resolve().name
    keys: set[str] = set()
    for one in study.judged:
        images = run_images(one)
        if images:
            keys |= {image.key for image in images}
            job = Job("sample", job_name(study, one), group, _facts(study, one))
            run = start(settings, sweep_dir, job)
            _log_images(run, one, images)
            _log_best(run, one)
            run.finish(one.run.complete or bool(one.run.ended_early))
    run = start(settings, sweep_dir, Job("report", group, group, {"sweep": sweep_dir.name}))
    _log_report(run, study, sweep_dir / FOLDER)
    log_view(run, group, sorted(keys))
    run.finish(True)


def publish_to_tensorboard(sweep_dir: Path) -> None:
    """Write each run's images into its tensorboard/, under the tags of Weights & Biases."""
    from torch.utils.tensorboard import SummaryWriter

    for one in judge(load_sweep(sweep_dir)).judged:
        images = run_images(one)
        if not images:
            continue
        folder = one.run.folder / "tensorboard"
        for earlier in folder.glob(f"*{SUFFIX}"):
            earlier.unlink()
        writer = SummaryWriter(str(folder), filename_suffix=SUFFIX)
        for step, pictures in _by_step(images).items():
            add_images(writer, pictures, step)
        writer.close()


def best_step(one: Judged) -> int | None:
    """The step whose LoRA did best on held-out images; None when that wasn't measured."""
    step = one.measures.held_out_best_step
    return int(step) if math.isfinite(step) else None


def job_name(study: Study, one: Judged) -> str:
    """What a run is called among the others of its sweep: network.dim=16 seed=1234 (base)."""
    value = study.sweep.base_value if one.run.is_base else one.run.value
    seed = f" seed={one.run.seed}" if one.run.seed is not None else f" {one.run.name}"
    role = " (base)" if one.run.is_base else ""
    return f"{study.sweep.parameter}={value}"[:MAX_NAME] + seed + role


def _facts(study: Study, one: Judged) -> dict[str, Any]:
    return {
        "parameter": study.sweep.parameter,
        "value": study.sweep.base_value if one.run.is_base else one.run.value,
        "role": "base" if one.run.is_base else "value",
        "seed": one.run.seed,
    }


def _by_step(images: Sequence[RunImage]) -> dict[int, dict[str, LoggedImage]]:
    """Step -> key -> image, steps ascending."""
    found: dict[int, dict[str, LoggedImage]] = {}
    for image in sorted(images, key=lambda image: image.step):
        caption = f"{image.text} (seed {image.seed})" if image.text else ""
        found.setdefault(image.step, {})[f"images/{image.key}"] = LoggedImage(image.path, caption)
    return found


def _log_images(run: WandbRun, one: Judged, images: Sequence[RunImage]) -> None:
    for step, pictures in _by_step(images).items():
        run.log(step, {}, pictures)
    rows = [
        [
            one.run.value,
            image.step,
            image.text or image.prompt,
            image.seed,
            image.checkpoint,
            LoggedImage(image.path),
        ]
        for image in images
    ]
    run.log_table("images_table", TABLE, rows, max(image.step for image in images))
    run.summarize(_figures(one))


def _log_best(run: WandbRun, one: Judged) -> None:
    """Give the best LoRA of the run its alias, beside those of the training."""
    step = best_step(one)
    saves = {save.step: save for save in find_saves(one.run.folder, {"steps": one.measures.steps})}
    if step in saves:
        facts = {"step": step, "held_out_loss": one.measures.held_out_best}
        files = {LORA_FILE: saves[step].path}
        run.log_files("lora", lora_name(one.run.folder), files, ["best"], facts)


def _figures(one: Judged) -> dict[str, Any]:
    """What the verdict says of a run, flat."""
    figures: dict[str, Any] = {"verdict": one.verdict.value}
    for result in one.results:
        for name in ("effect", "low", "high", "detectable"):
            if math.isfinite(value := getattr(result, name)):
                figures[f"{result.metric}/{name}"] = value
        figures[f"{result.metric}/verdict"] = result.verdict.value
    costs = {"held_out_loss": one.measures.held_out, "lora_bytes": one.measures.lora_bytes}
    return figures | {name: cost for name, cost in costs.items() if math.isfinite(cost)}


def _log_report(run: WandbRun, study: Study, folder: Path) -> None:
    """Sentence, table, figures, grids, and the files themselves."""
    rows = list(csv.reader(io.StringIO(comparison_text(study))))
    pictures = {
        f"{'grids' if path.name.startswith('grid_') else 'figures'}/{path.stem}": LoggedImage(path)
        for path in sorted(folder.glob("*.png"))
    }
    run.log(0, {}, pictures)
    run.log_table("comparison", rows[0], rows[1:], 0)
    verdicts = list(csv.reader(io.StringIO(verdicts_text(study))))
    run.log_table("verdicts", verdicts[0], verdicts[1:], 0)
    summary: dict[str, Any] = {"sentence": headline(study).sentence}
    for one in study.judged:
        summary |= {f"{one.run.name}/{name}": value for name, value in _figures(one).items()}
    run.summarize(summary)
    files = {name: folder / name for name in ARTIFACT_FILES if (folder / name).is_file()}
    if files:
        run.log_files("report", f"{folder.resolve().parent.name}-report", files, [], {})
