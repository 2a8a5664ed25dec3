"""The LoRA: its settings and their ranges."""

from dataclasses import dataclass

from lora_lab.config.rules import above, at_least


@dataclass
class NetworkConfig:
    """The LoRA."""

    dim: int
    """Rank of the LoRA matrices; >= 1."""
    alpha: float
    """The LoRA's weight is alpha / dim; > 0."""
    train_unet: bool
    """Train the linear layers of the UNet; true or false."""
    train_text_encoder: bool
    """Train the linear layers of the text encoder; true or false."""


RULES = (
    at_least("dim", 1),
    above("alpha", 0),
)


def problems(network: NetworkConfig) -> list[str]:
    """Returns one line for each pair of settings that don't go together."""
    if network.train_unet or network.train_text_encoder:
        return []
    return [
        "network.train_unet and network.train_text_encoder are both false, which leaves "
        "nothing to train; set one of them to true"
    ]
