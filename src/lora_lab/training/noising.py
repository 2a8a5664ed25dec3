"""What a run's settings make of the noise schedule and of a batch's noise.

Shapes: B images a batch, C latent channels, h and w latent sides, T training timesteps.
"""

from torch import Tensor

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.config import ObjectiveConfig
from lora_lab.data.batch import Batch
from lora_lab.errors import ConfigError
from lora_lab.objective import offset_noise, pyramid_noise, zero_terminal_alphas_cumprod


def batch_noise(batch: Batch, config: ObjectiveConfig) -> Tensor:
    """The noise that is added to a batch and, for ε-prediction, asked for, (B, C, h, w)."""
    if batch["noise_levels"] is not None:
        levels, discount = batch["noise_levels"], config.multires_noise_discount
        return pyramid_noise(batch["noise"], levels, discount)
    strength: Tensor | float = config.noise_offset
    if config.noise_offset_random and config.noise_offset > 0:
        strength = config.noise_offset * batch["offset_strength"]
    return offset_noise(batch["noise"], batch["offset_noise"], strength)


def training_alphas(base: BaseModel, config: ObjectiveConfig) -> Tensor:
    """The noise schedule ᾱ that is trained on, (T,).

    Raises:
        ConfigError: The settings would weight a timestep without limit.
    """
    alphas_cumprod = base.noise_scheduler.alphas_cumprod.clone()
    if not config.zero_terminal_snr:
        return alphas_cumprod
    if base.noise_scheduler.config["prediction_type"] == "epsilon" and config.debiased_estimation:
        raise ConfigError(
            "objective.zero_terminal_snr and objective.debiased_estimation together need a "
            "v-prediction checkpoint: the signal of the last timestep is 0, and its weight for ε "
            "would be infinite; set one of them to false"
        )
    return zero_terminal_alphas_cumprod(alphas_cumprod)
