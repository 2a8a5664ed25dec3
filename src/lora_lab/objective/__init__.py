"""The training objective as pure functions: noise, target, loss, weights and timesteps.

Shapes: B images a batch, C latent channels, h and w latent sides, T training timesteps.
"""

from lora_lab.objective.losses import (
    LOSSES,
    elementwise_loss,
    huber_thresholds,
    image_means,
    squared_error,
)
from lora_lab.objective.noise import (
    add_noise,
    offset_noise,
    perturbed_noise,
    pyramid_levels,
    pyramid_noise,
)
from lora_lab.objective.prediction import target
from lora_lab.objective.timesteps import draw_timestep, stratified
from lora_lab.objective.weights import (
    debiased_weights,
    min_snr_weights,
    signal_to_noise,
    zero_terminal_alphas_cumprod,
)

__all__ = [
    "LOSSES",
    "add_noise",
    "debiased_weights",
    "draw_timestep",
    "elementwise_loss",
    "huber_thresholds",
    "image_means",
    "min_snr_weights",
    "offset_noise",
    "perturbed_noise",
    "pyramid_levels",
    "pyramid_noise",
    "signal_to_noise",
    "squared_error",
    "stratified",
    "target",
    "zero_terminal_alphas_cumprod",
]
