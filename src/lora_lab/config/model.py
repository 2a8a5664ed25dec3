"""The base checkpoint: its settings and their ranges."""

from dataclasses import dataclass

from lora_lab.config.rules import at_least, text


@dataclass
class ModelConfig:
    """The base checkpoint that the LoRA is trained on."""

    name: str
    """Name of the base model, written into the LoRA's metadata."""
    checkpoint: str
    """Base checkpoint: single file (.safetensors), diffusers folder, or embedded:pocket."""
    clip_skip: int
    """Which hidden state of the text encoder is used, counted from its end; >= 1, 1 is the last."""
    allow_pickle: bool
    """Also read pickle checkpoints (.ckpt, .pt, .bin), with weights_only=True; true or false."""


RULES = (
    text("name"),
    text("checkpoint"),
    at_least("clip_skip", 1),
)
