"""Where figures are logged: settings and their ranges."""

from dataclasses import dataclass

from lora_lab.config.rules import one_of, or_null, text

WANDB_MODES = ("auto", "online", "offline")


@dataclass
class WandbConfig:
    """Weights & Biases; the key comes from `wandb login`, never from here."""

    enabled: bool
    """Log to Weights & Biases; chosen by logger=wandb; true or false."""
    project: str
    """Project that the runs belong to."""
    group: str | None
    """Group that the run belongs to; null: the name of the sweep's folder, none without a sweep."""
    loras: bool
    """Log the saved LoRA files as artifacts, which uploads them; true or false."""
    mode: str
    """auto (online when logged in, else offline), online or offline."""


@dataclass
class LoggerConfig:
    """Where figures are logged; metrics.csv is always written."""

    tensorboard: bool
    """Write TensorBoard's event files; chosen by logger=tensorboard; true or false."""
    wandb: WandbConfig
    """Weights & Biases."""


RULES = (
    text("wandb.project"),
    or_null(text("wandb.group")),
    one_of("wandb.mode", WANDB_MODES),
)
