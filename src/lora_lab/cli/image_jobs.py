"""The images of a sweep as jobs of its launcher: a run's images are drawn and scored by one job.

A job gets the settings of the base run, which draw all runs, and the folder of its own run as
Hydra's output folder. What it gives back is enough to put the images into grids, so the process
where the command was typed loads no base model. Jobs of one process share what they load.
"""

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from lora_lab.cli.preflight import checked_train_config
from lora_lab.cli.quoting import quote
from lora_lab.cli.sweep_plan import PlannedRun
from lora_lab.cli.task import output_folder
from lora_lab.config import SamplingConfig, TrainConfig
from lora_lab.errors import LabError

if TYPE_CHECKING:
    from lora_lab.checkpoint.base_model import BaseModel
    from lora_lab.metrics.image_scores import ImageScorer
    from lora_lab.sampling.grids.draw_grids import DrawnImages
    from lora_lab.sampling.pipeline import LoRAPipeline

log = logging.getLogger(__name__)

KEPT_BYTES = 2**30
"""Base models that a process keeps for its next job take no more than this; pocket's are 0.1 GB."""


@dataclass(frozen=True)
class RunImages:
    """What the job of a run gives back."""

    drawn: "DrawnImages | None" = None
    """None where no grid shows the run."""
    unscored: list[str] = field(default_factory=list)
    """One line for each thing that is missing from its scores."""
    not_scored: str | None = None
    """Why nothing could be scored."""


def image_settings(base: TrainConfig) -> SamplingConfig:
    """How the grids of a sweep are drawn: on the checkpoint trained on unless others are named."""
    sampling = base.sampling
    return (
        sampling if sampling.checkpoints else replace(sampling, checkpoints=[base.model.checkpoint])
    )


def image_overrides(base: PlannedRun, sweep_dir: str, run: str) -> list[str]:
    """What a launcher composes the job of a run's images from: the base's settings.

    Args:
        base: The base's run.
        sweep_dir: The sweep folder.
        run: Folder of the run, relative to it.
    """
    folders = [f"hydra.sweep.dir={quote(sweep_dir)}", f"hydra.sweep.subdir={quote(run)}"]
    return [*base.overrides, *folders]


def image_job(config: DictConfig) -> RunImages:
    """Draw the images of the run in Hydra's output folder, and score them; what is there stays.

    Args:
        config: Settings of the base run.

    Raises:
        LabError: The runs can't be read, or no grid can be drawn with these settings.
    """
    import torch

    settings = checked_train_config(config)
    sweep, run = Path(str(HydraConfig.get().sweep.dir)), output_folder()
    if settings.trainer.threads:
        torch.set_num_threads(settings.trainer.threads)  # on others, images differ
    drawn = _draw(sweep, run, image_settings(settings))
    if not settings.metrics.enabled:
        return RunImages(drawn)
    try:
        return RunImages(drawn, _score(sweep, run, settings))
    except LabError as error:
        return RunImages(drawn, not_scored=str(error))


def _draw(sweep: Path, run: Path, sampling: SamplingConfig) -> "DrawnImages | None":
    from lora_lab.sampling.grids.draw_grids import plan_grids

    if not sampling.grids:
        return None
    drawer = plan_grids(sweep, sampling)
    own = [one for one in drawer.runs() if one.resolve() == run.resolve()]
    for folder in own:
        drawer.draw(folder, _kept.pipeline)
    return drawer.drawn if own else None


def _score(sweep: Path, run: Path, settings: TrainConfig) -> list[str]:
    from lora_lab.metrics.image_scores import scorable

    own = [one for one in scorable(sweep) if one.folder.resolve() == run.resolve()]
    if not own:
        return []
    scorer, problems = _kept.scorer(sweep, settings)
    return [*problems, *(line for one in own for line in scorer.score_run(one))]


class KeptModels:
    """What the jobs of a process have loaded, the latest last."""

    def __init__(self) -> None:
        self._models: dict[Hashable, tuple[Any, int]] = {}

    def pipeline(self, checkpoint: str, config: SamplingConfig) -> "LoRAPipeline":
        """A checkpoint to draw with.

        Raises:
            LabError: It can't be read, or the settings don't suit it.
        """
        from lora_lab.sampling.grids.draw_grids import load_pipeline

        def load() -> tuple["LoRAPipeline", "BaseModel"]:
            pipeline = load_pipeline(checkpoint, config)
            return pipeline, pipeline.base

        return self._get(("draw", checkpoint, repr(config)), load)

    def scorer(self, sweep: Path, settings: TrainConfig) -> tuple["ImageScorer", list[str]]:
        """What scores the runs of a sweep, and one line for each encoder that is missing.

        Raises:
            LabError: CLIP, the base checkpoint or the training images can't be read.
        """
        from lora_lab.metrics.image_scores import load_scorer

        def load() -> tuple[tuple["ImageScorer", list[str]], "BaseModel"]:
            found = load_scorer(sweep, settings)
            return found, found[0].base

        return self._get(("score", sweep, repr(settings)), load)

    def _get(self, key: Hashable, load: Callable[[], tuple[Any, "BaseModel"]]) -> Any:
        if key in self._models:
            self._models[key] = self._models.pop(key)
            return self._models[key][0]
        made, base = load()
        parts = (base.unet, base.text_encoder, base.vae)
        size = sum(t.numel() * t.element_size() for part in parts for t in part.parameters())
        self._models[key] = made, size
        while sum(one for _, one in self._models.values()) > KEPT_BYTES:
            self._models.pop(next(iter(self._models)))
        return made


_kept = KeptModels()
