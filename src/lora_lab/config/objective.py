"""Noise and loss: their settings and ranges."""

from dataclasses import dataclass

from lora_lab.config.rules import at_least


@dataclass
class ObjectiveConfig:
    """The noise and the loss."""

    noise_offset: float
    """Size of the random offset added to each channel's noise; >= 0, 0 is off."""
    min_snr_gamma: float
    """Cap of the signal-to-noise ratio in the loss weights (arXiv 2303.09556); >= 0, 0 is off."""


RULES = (
    at_least("noise_offset", 0),
    at_least("min_snr_gamma", 0),
)
