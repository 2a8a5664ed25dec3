"""The base checkpoint: its settings and their ranges."""

import math
from dataclasses import dataclass

from lora_lab.config.rules import Rule, at_least, one_of, or_null, text

PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass
class MergeConfig:
    """A LoRA that is merged into the base checkpoint."""

    file: str
    """LoRA file; a path."""
    weight: float
    """How much of it, a factor; 1 is as trained."""


@dataclass
class ModelConfig:
    """The base checkpoint that the LoRA is trained on."""

    name: str
    """Name of the base model, written into the LoRA's metadata."""
    checkpoint: str
    """Base checkpoint: single file (.safetensors), diffusers folder, hub id, or embedded:pocket."""
    clip_skip: int
    """Which hidden state of the text encoder is used, counted from its end; >= 1, 1 is the last."""
    allow_pickle: bool
    """Also read pickle checkpoints (.ckpt, .pt, .bin), with weights_only=True; true or false."""
    prediction_type: str | None
    """What the UNet predicts: epsilon or v_prediction; null: what the checkpoint says."""
    merge: list[MergeConfig]
    """LoRAs merged into the checkpoint before training, as [{file: path, weight: number}]."""


MERGE_RULE = Rule(
    "merge",
    "a list of {file: path that is not empty, weight: finite number}",
    lambda value: all(item.file.strip() and math.isfinite(item.weight) for item in value),
)
RULES = (
    text("name"),
    text("checkpoint"),
    at_least("clip_skip", 1),
    or_null(one_of("prediction_type", PREDICTION_TYPES)),
    MERGE_RULE,
)
