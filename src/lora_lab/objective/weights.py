"""How much each timestep's loss counts, and the noise schedule that this follows from.

Shapes: B images a batch, T training timesteps.
"""

import torch
from torch import Tensor

MAX_SNR = 1000.0
"""Cap of the ratio in the debiased weights; only SD 1.5's first timestep lies above it."""


def signal_to_noise(alphas_cumprod: Tensor) -> Tensor:
    """SNR(t) = ᾱ_t / (1 - ᾱ_t), (T,); arXiv 2303.09556, section 3.1."""
    return alphas_cumprod / (1.0 - alphas_cumprod)


def min_snr_weights(snr: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """Loss weights of the min-SNR-γ strategy.

    For ε-prediction min(SNR, γ) / SNR, for v-prediction min(SNR, γ) / (SNR + 1).
    Source: arXiv 2303.09556, section 3.4.

    Args:
        snr: SNR at each image's timestep, (B,). At 0 the weight of ε is its limit, 1.
        gamma: γ; 0 turns the weighting off.
        prediction_type: ``epsilon`` or ``v_prediction``.

    Returns:
        Weights, (B,).
    """
    if gamma == 0:
        return torch.ones_like(snr)
    if prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1.0)
    return (gamma / snr).clamp(max=1.0)


def debiased_weights(snr: Tensor, prediction_type: str) -> Tensor:
    """Loss weights of debiased estimation: 1 / sqrt(SNR) on the error of ε.

    Source: "Debias the Training of Diffusion Models", arXiv 2310.08442. At a given x_t
    an error of v is an error of ε over sqrt(ᾱ), so the weight of v is sqrt(SNR) / (SNR + 1).
    The SNR is capped at 1000, as in kohya's sd-scripts, whose weight for v is 1 / (SNR + 1).

    Args:
        snr: SNR at each image's timestep, (B,); > 0 for ε-prediction.
        prediction_type: ``epsilon`` or ``v_prediction``.

    Returns:
        Weights, (B,).
    """
    capped = snr.clamp(max=MAX_SNR)
    if prediction_type == "v_prediction":
        return capped.sqrt() / (capped + 1.0)
    return capped.rsqrt()


def zero_terminal_alphas_cumprod(alphas_cumprod: Tensor) -> Tensor:
    """ᾱ shifted and scaled so that the last timestep is pure noise and the first stays as it is.

    Source: "Common Diffusion Noise Schedules and Sample Steps are Flawed", arXiv 2305.08891,
    algorithm 1.

    Args:
        alphas_cumprod: ᾱ of the checkpoint, falling, (T,).

    Returns:
        ᾱ with 0 at the end, (T,).
    """
    root = alphas_cumprod.double().sqrt()
    first, last = root[0], root[-1]
    return ((root - last) * (first / (first - last))).square().to(alphas_cumprod.dtype)
