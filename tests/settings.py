"""Settings as the commands compose them, without starting a command."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from lora_lab.config import SamplingConfig, TrainConfig, to_config
from lora_lab.config.store import register_schemas

CONF = Path(__file__).resolve().parents[1] / "conf"


def composed_tree(*overrides: str, name: str = "train", with_hydra: bool = False) -> DictConfig:
    """What Hydra makes of conf/ with overrides as on the command line.

    Args:
        overrides: Such as ``network.dim=8``.
        name: The file to start from.
        with_hydra: Whether Hydra's own node is kept, which a sweep reads.
    """
    register_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides), return_hydra_config=with_hydra)


def composed(*overrides: str) -> TrainConfig:
    """The base config with overrides as on the command line."""
    return to_config(composed_tree(*overrides))


def changed(config: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    """The config with other values by their full keys, such as ``network.dim``."""
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        if section:
            part = replace(getattr(config, section), **{name: value})
            config = replace(config, **{section: part})
        else:
            config = replace(config, **{name: value})
    return config


def tiny_sampling(checkpoint: Path, **changes: object) -> SamplingConfig:
    """Sampling of 32 px images in 3 steps."""
    config = composed().sampling
    config.checkpoints = [str(checkpoint)]
    config.width = config.height = 32
    config.steps = 3
    config.prompts.random = config.prompts.random[:2]
    config.random_seeds = config.random_seeds[:2]
    for name, value in changes.items():
        assert name in vars(config)
        setattr(config, name, value)
    return config
