"""TensorBoard and Weights & Biases while training, by choice.

metrics.csv is always written, by a callback.
"""

import csv
import dataclasses
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lora_lab.config import TrainConfig
from lora_lab.files import read_text
from lora_lab.images.opening import open_picture
from lora_lab.loggers.wandb_run import Job, LoggedImage, WandbRun, start
from lora_lab.run_folder.record import SEED, read_facts, run_name
from lora_lab.run_folder.saved_loras import find_saves

log = logging.getLogger(__name__)
JOURNAL = "wandb/images.jsonl"
"""Which images were logged while training; a run that goes on offline logs them again."""


class WandbLogger(Logger):
    """Figures, images and LoRA files of one training run.

    Args:
        run: The run on Weights & Biases.
        run_dir: The run folder.
        keep_loras: Whether the LoRA files are logged as artifacts when the run ends.
    """

    def __init__(self, run: WandbRun, run_dir: Path, keep_loras: bool) -> None:
        super().__init__()
        self.run = run
        self.run_dir = run_dir
        self.keep_loras = keep_loras
        self.first_step = run.first_step

    @property
    def name(self) -> str:
        """Of the logger."""
        return "wandb"

    @property
    def version(self) -> str:
        """The run's id."""
        return str(self.run.run.id)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the settings were given at the start."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the figures of a step; those that were logged before a restart are left out."""
        if step is None or step < self.first_step:
            return
        self.run.log(step, {key: value for key, value in metrics.items() if key != "step"})

    def log_pictures(self, pictures: Mapping[str, LoggedImage], step: int) -> None:
        """Log all images of a step at once."""
        if step < self.first_step:
            return
        with (self.run_dir / JOURNAL).open("a", encoding="utf-8") as file:
            for key, picture in pictures.items():
                path = picture.path.resolve().relative_to(self.run_dir.resolve())
                entry = {"step": step, "key": key, "path": str(path), "caption": picture.caption}
                file.write(json.dumps(entry) + "\n")
        self.run.log(step, {}, pictures)

    def replay(self) -> None:
        """Log again what an interrupted part logged, unless the server has it already.

        Offline parts of one run overwrite each other when they are synced: the last must hold all.
        """
        rows = _read_rows(self.run_dir / "metrics.csv")
        pictures = _read_journal(self.run_dir)
        for step in sorted(rows.keys() | pictures.keys()):
            if step >= self.run.first_step:
                self.run.log(step, rows.get(step, {}), pictures.get(step))
                self.first_step = step

    def finalize(self, status: str) -> None:
        """Nothing: Lightning calls this before the run is known to have gone well."""

    def close(self, ok: bool) -> None:
        """Log the LoRA files with their place in the run as aliases, and end."""
        if self.keep_loras:
            log_loras(self.run, self.run_dir)
        self.run.finish(ok)


@contextmanager
def running_loggers(config: TrainConfig, run_dir: Path, resumed: bool) -> Iterator[list[Logger]]:
    """The loggers that the config turns on, closed after the block; metrics.csv is apart.

    In a sweep the next run begins in the same process. Arguments and errors are those of
    ``build_loggers``.
    """
    loggers = build_loggers(config, run_dir, resumed)
    ok = False
    try:
        yield loggers
        ok = True
    finally:
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.close(ok)
            else:
                logger.finalize("success" if ok else "failed")


def build_loggers(config: TrainConfig, run_dir: Path, resumed: bool = False) -> list[Logger]:
    """The loggers that the config turns on, beside metrics.csv; several at once are possible.

    Args:
        config: The run's settings, which the loggers store without paths.
        run_dir: Files go to its tensorboard/ and wandb/.
        resumed: Whether an interrupted run is resumed.

    Raises:
        LabError: Weights & Biases can't be started.
    """
    loggers: list[Logger] = []
    if getattr(rank_zero_only, "rank", 0):
        return loggers
    if config.logger.tensorboard:
        loggers.append(TensorBoardLogger(run_dir, name="tensorboard", version=""))
    if config.logger.wandb.enabled:
        settings = config.logger.wandb
        job = Job("train", run_name(run_dir), settings.group, public_settings(config))
        if not resumed:
            (run_dir / JOURNAL).unlink(missing_ok=True)
        logger = WandbLogger(start(settings, run_dir, job, resumed), run_dir, settings.loras)
        if resumed:
            logger.replay()
        loggers.append(logger)
    return loggers


def log_images(loggers: list[Logger], pictures: Mapping[str, LoggedImage], step: int) -> None:
    """Show images of a step in every logger that can show any.

    Args:
        loggers: Of the running training.
        pictures: Stable key (the same in every run and at every step) -> a PNG in the run folder.
        step: The training step.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_pictures(pictures, step)
        elif isinstance(logger, TensorBoardLogger):
            add_images(logger.experiment, pictures, step)


def add_images(writer: Any, pictures: Mapping[str, LoggedImage], step: int) -> None:
    """Write images to TensorBoard's event file.

    Args:
        writer: A SummaryWriter.
        pictures: Tag -> image.
        step: The training step.
    """
    import numpy as np

    for key, picture in pictures.items():
        with open_picture(picture.path) as image:
            pixels = np.asarray(image.convert("RGB"))  # (H, W, 3)
        writer.add_image(key, pixels, step, dataformats="HWC")


def log_loras(run: WandbRun, run_dir: Path) -> None:
    """Log every saved LoRA of a run as a version of one artifact."""
    saves = find_saves(run_dir, read_facts(run_dir) or {})
    for save in saves:
        aliases = [f"step-{save.step}"]
        aliases += [f"{100 * save.share:.3g}%"] if save.share else []
        aliases += ["final"] if save.share == 1 else []
        facts = {"step": save.step, "share": save.share}
        run.log_files("lora", lora_name(run_dir), {LORA_FILE: save.path}, aliases, facts)


LORA_FILE = "lora.safetensors"
"""Name inside the artifact: versions of equal bytes must be one."""


def log_view(run: WandbRun, group: str, image_keys: Sequence[str]) -> None:
    """Save a view of the sweep when its runs are online."""
    if run.online:
        from lora_lab.loggers.wandb_view import save_view

        save_view(run.run.entity, run.run.project, group, [f"images/{key}" for key in image_keys])


def lora_name(run_dir: Path) -> str:
    """The artifact that holds a run's LoRA files."""
    folder = run_dir.resolve()
    sweep = folder.parent.parent.name if folder.name.startswith(SEED) else folder.parent.name
    return f"{sweep}-{run_name(folder).replace(' ', '-')}-lora"


def public_settings(config: TrainConfig) -> dict[str, Any]:
    """The config as plain values without loggers, and without the paths of this machine."""
    values = dataclasses.asdict(config)
    del values["logger"]
    public = _without_folders(values)
    assert isinstance(public, dict)
    return public


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    if isinstance(value, str) and (value.startswith("~") or Path(value).is_absolute()):
        return Path(value).name
    return value


def _read_rows(path: Path) -> dict[int, dict[str, float]]:
    """Step -> figures, of the whole lines of a metrics.csv."""
    if not path.is_file():
        return {}
    text = read_text(path)
    found: dict[int, dict[str, float]] = {}
    for row in csv.DictReader(text[: text.rfind("\n") + 1].splitlines()):
        figures = {name: float(cell) for name, cell in row.items() if name and cell}
        found[int(figures.pop("step"))] = figures
    return found


def _read_journal(run_dir: Path) -> dict[int, dict[str, LoggedImage]]:
    """Step -> images that were logged at it, as far as their files are there."""
    path = run_dir / JOURNAL
    found: dict[int, dict[str, LoggedImage]] = {}
    if path.is_file():
        for line in read_text(path).splitlines():
            entry = json.loads(line)
            file = run_dir / entry["path"]
            if file.is_file():
                picture = LoggedImage(file, entry["caption"])
                found.setdefault(entry["step"], {})[entry["key"]] = picture
    return found
