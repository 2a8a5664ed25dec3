"""The training objective: noising, targets and loss weights as pure functions.

Shapes: B images a batch, C latent channels, h and w latent sides, T training timesteps.
"""

import torch
from torch import Tensor

from lora_lab.errors import LabError


def add_noise(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor) -> Tensor:
    """The forward process x_t = sqrt(ᾱ_t) x_0 + sqrt(1 - ᾱ_t) ε.

    Source: DDPM, arXiv 2006.11239, equation 4.

    Args:
        latents: x_0, (B, C, h, w).
        noise: ε, (B, C, h, w).
        timesteps: Integers in [0, T), (B,).
        alphas_cumprod: ᾱ, (T,).

    Returns:
        x_t, (B, C, h, w).
    """
    alpha_bar = _per_image(alphas_cumprod, timesteps, latents)  # (B, 1, 1, 1)
    return alpha_bar.sqrt() * latents + (1.0 - alpha_bar).sqrt() * noise


def offset_noise(noise: Tensor, offset_draw: Tensor, noise_offset: float) -> Tensor:
    """Noise with a random shift of each channel's mean: ε + offset · randn(B, C, 1, 1).

    Source: N. Guttenberg, "Diffusion with Offset Noise" (2023); the form of kohya's sd-scripts.

    Args:
        noise: ε, (B, C, h, w).
        offset_draw: Standard normal draws, (B, C, 1, 1).
        noise_offset: Strength; 0 returns the noise itself.
    """
    return noise if noise_offset == 0 else noise + noise_offset * offset_draw


def target(
    prediction_type: str, latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor
) -> Tensor:
    """What the UNet is to predict, (B, C, h, w).

    ``epsilon``: ε (arXiv 2006.11239, equation 14). ``v_prediction``: sqrt(ᾱ) ε - sqrt(1 - ᾱ) x_0
    (Progressive Distillation, arXiv 2202.00512, appendix D).

    Raises:
        LabError: Another prediction type.
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        alpha_bar = _per_image(alphas_cumprod, timesteps, latents)  # (B, 1, 1, 1)
        return alpha_bar.sqrt() * noise - (1.0 - alpha_bar).sqrt() * latents
    raise LabError(
        f"the checkpoint's scheduler asks for prediction_type {prediction_type!r}, "
        "training knows epsilon and v_prediction: choose another checkpoint"
    )


def signal_to_noise(alphas_cumprod: Tensor) -> Tensor:
    """SNR(t) = ᾱ_t / (1 - ᾱ_t), (T,); arXiv 2303.09556, section 3.1."""
    return alphas_cumprod / (1.0 - alphas_cumprod)


def min_snr_weights(snr: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Loss weights of the min-SNR-γ strategy.

    For ε-prediction min(SNR, γ) / SNR, for v-prediction min(SNR, γ) / (SNR + 1).
    Source: arXiv 2303.09556, section 3.4.

    Args:
        snr: SNR at each image's timestep, (B,).
        gamma: γ; 0 turns the weighting off.
        prediction_type: ``epsilon`` or ``v_prediction``.

    Returns:
        Weights, (B,).
    """
    if gamma == 0:
        return torch.ones_like(snr)
    divisor = snr + 1.0 if prediction_type == "v_prediction" else snr
    return snr.clamp(max=gamma) / divisor


def squared_error(prediction: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error of each image in float32, (B, C, h, w) twice -> (B,)."""
    return (prediction.float() - wanted.float()).pow(2).mean(dim=(1, 2, 3))


def _per_image(alphas_cumprod: Tensor, timesteps: Tensor, latents: Tensor) -> Tensor:
    """ᾱ at each image's timestep in the latents' type, (B, 1, 1, 1)."""
    return alphas_cumprod[timesteps].to(latents.dtype).view(-1, 1, 1, 1)
