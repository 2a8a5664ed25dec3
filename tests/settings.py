"""Settings as the commands compose them, without starting a command."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from lora_lab.config import SamplingConfig, TrainConfig, to_config
from lora_lab.config.store import register_schemas

CONF = Path(__file__).resolve().parents[1] / "conf"


def composed(*overrides: str) -> TrainConfig:
    """The base config with overrides as on the command line."""
    register_schemas()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return to_config(compose("train", list(overrides)))


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
