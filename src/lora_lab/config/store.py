"""Hands the schemas and the log formats to Hydra; YAML files name them in their defaults lists."""

from hydra.core.config_store import ConfigStore

from lora_lab.config.sample import SampleConfig
from lora_lab.config.train import TrainConfig


def register_schemas() -> None:
    """Store ``train_schema`` and ``sample_schema``, which type every key of ``conf/``."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="sample_schema", node=SampleConfig)
