"""The settings that are measured: the project's own defaults, with overrides as for train.py."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from lora_lab.config import TrainConfig, to_config
from lora_lab.config.store import register_schemas

ROOT = Path(__file__).resolve().parents[1]


def train_settings(overrides: list[str]) -> TrainConfig:
    """The resolved settings of a training run.

    Args:
        overrides: As for train.py, such as ``network.dim=8``.
    """
    register_schemas()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config: DictConfig = compose("train", overrides)
    return to_config(config)


def images_per_epoch(config: TrainConfig) -> int:
    """Images that an epoch shows, from the folder that the config names."""
    from lora_lab.data.folders import find_examples

    return sum(example.repeats for example in find_examples(config.data).train)


def steps_per_epoch(config: TrainConfig) -> int:
    """Whole batches of an epoch; one at least."""
    return max(1, images_per_epoch(config) // config.data.batch_size)
