"""The typed settings: dataclasses with one line of meaning a field, and their checks.

Values live in ``conf/``; nothing here holds a default.
"""

from lora_lab.config.check import check, check_sample
from lora_lab.config.convert import to_config, to_sample_config
from lora_lab.config.sample import PromptsConfig, SampleConfig, SamplingConfig
from lora_lab.config.train import (
    CallbacksConfig,
    DataConfig,
    LoggerConfig,
    ModelConfig,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
    StudyConfig,
    TrainConfig,
    TrainerConfig,
    WandbConfig,
)

__all__ = [
    "CallbacksConfig",
    "DataConfig",
    "LoggerConfig",
    "ModelConfig",
    "NetworkConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
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
    "to_config",
    "to_sample_config",
]
