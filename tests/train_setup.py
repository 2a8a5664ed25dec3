"""The base config made small: a run of the tiny person on the tiny base takes a second."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_lab.config import DataConfig, TrainConfig
from settings import changed, composed

WORDS = ("one", "two", "three", "four", "five")
CONFIG = composed(
    *("model.name=tiny", "model.checkpoint=none", "data.dir=none"),
    *("data.resolution=32", "data.batch_size=4", "epochs=2", "save_every=0.5"),
    *("network.dim=4", "network.alpha=1", "optimizer.d0=1e-6", "callbacks.progress=false"),
    *("trainer.accelerator=cpu", "trainer.threads=1"),
    *("logger.wandb.project=test", "logger.wandb.mode=offline"),
    *("study.seeds=2", "study.reuse_from=null"),
    *("sampling.checkpoints=[]", "sampling.grids=[]", "sampling.device=cpu"),
    *("sampling.prompts.simple=a", "sampling.prompts.complex=b", "sampling.prompts.random=[]"),
    *("sampling.seed=1", "sampling.random_seeds=[]", "sampling.sampler=Euler", "sampling.steps=1"),
    *("sampling.guidance=1", "sampling.width=32", "sampling.height=32", "sampling.batch_size=1"),
    *("sampling.clip_skip=1", "sampling.axes.lora_weight=[1]", "sampling.axes.seed=[1]"),
    *("sampling.axes.sampler=[Euler]", "sampling.axes.guidance=[1]", "metrics.enabled=false"),
    *("metrics.seeds=[1,2]", "metrics.plain_seeds=[3]", "metrics.choice_weights=[0.5,1]"),
    "metrics.prompts=[" + ",".join(f"'{{subject}} {word}'" for word in WORDS) + "]",
    *(f"metrics.plain_prompts=[{','.join(WORDS)}]", "metrics.choice_prompts=['{subject} six']"),
    *("metrics.steps=2", "metrics.draw_batch_size=10"),
)
"""Two epochs of 3 steps: the guide's optimizer on a plain LoRA, saved after each epoch."""
CONFIG.sampling.prompts.complex_for = {}
OPTIMIZER, SCHEDULE, NETWORK = CONFIG.optimizer, CONFIG.schedule, CONFIG.network
OBJECTIVE, TRAINER, SAMPLING = CONFIG.objective, CONFIG.trainer, CONFIG.sampling


def data_config(folder: Path, **changes: Any) -> DataConfig:
    """The tiny person at 32 px, 12 samples an epoch, 3 batches."""
    return replace(deepcopy(CONFIG.data), dir=str(folder), **changes)


def train_config(base: Path, folder: Path, **changes: Any) -> TrainConfig:
    """The small config for a base checkpoint and a data folder.

    Args:
        base: The base checkpoint.
        folder: The data folder.
        changes: Values by key, with ``__`` for the dot: ``network__dim=8``.
    """
    config = deepcopy(CONFIG)
    config.model.checkpoint, config.data.dir = str(base), str(folder)
    return changed(config, {key.replace("__", "."): value for key, value in changes.items()})
