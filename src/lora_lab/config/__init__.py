"""The typed settings: dataclasses with one line of meaning a field, and their checks.

Values live in ``conf/``; nothing here holds a default.
"""

from lora_lab.config.callbacks import CallbacksConfig
from lora_lab.config.check_all import check, check_sample
from lora_lab.config.convert import read_config, to_config, to_sample_config
from lora_lab.config.data import DataConfig
from lora_lab.config.logger import LoggerConfig, WandbConfig
from lora_lab.config.metrics import MetricsConfig
from lora_lab.config.model import MergeConfig, ModelConfig
from lora_lab.config.network import NetworkConfig
from lora_lab.config.objective import ObjectiveConfig
from lora_lab.config.optimizer import OptimizerConfig
from lora_lab.config.sample import SampleConfig
from lora_lab.config.sampling import (
    AxesConfig,
    GridConfig,
    PictureConfig,
    PromptsConfig,
    SamplingConfig,
)
from lora_lab.config.schedule import ScheduleConfig
from lora_lab.config.study import StudyConfig
from lora_lab.config.train import TrainConfig
from lora_lab.config.trainer import TrainerConfig

__all__ = [
    "AxesConfig",
    "CallbacksConfig",
    "DataConfig",
    "GridConfig",
    "LoggerConfig",
    "MergeConfig",
    "MetricsConfig",
    "ModelConfig",
    "NetworkConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PictureConfig",
    "PromptsConfig",
    "SampleConfig",
    "SamplingConfig",
    "ScheduleConfig",
    "StudyConfig",
    "TrainConfig",
    "TrainerConfig",
    "WandbConfig",
    "check",
    "check_sample",
    "read_config",
    "to_config",
    "to_sample_config",
]
