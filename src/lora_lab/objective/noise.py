"""The noise that is added to latents, and the forward process that adds it.

Shapes: B images a batch, C latent channels, h and w latent sides, L levels, T training timesteps.
"""

import torch
from torch import Tensor
from torch.nn.functional import interpolate


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
    alpha_bar = per_image(alphas_cumprod, timesteps, latents)  # (B, 1, 1, 1)
    return alpha_bar.sqrt() * latents + (1.0 - alpha_bar).sqrt() * noise


def offset_noise(noise: Tensor, offset: Tensor, strength: Tensor | float) -> Tensor:
    """Noise with a random shift of each channel's mean: ε + strength · randn(B, C, 1, 1).

    Source: N. Guttenberg, "Diffusion with Offset Noise" (2023); the form of kohya's sd-scripts.

    Args:
        noise: ε, (B, C, h, w).
        offset: Standard normal, (B, C, 1, 1).
        strength: One number for all images, or one for each, (B,); 0 returns the noise itself.
    """
    if isinstance(strength, Tensor):
        return noise + strength.to(noise.dtype).view(-1, 1, 1, 1) * offset
    return noise if strength == 0 else noise + strength * offset


def pyramid_levels(shape: tuple[int, int, int], iterations: int, draws: torch.Generator) -> Tensor:
    """Coarse noise of one image at falling resolutions, each scaled up to the full size.

    Level i is drawn at ⌊h / r^i⌋ by ⌊w / r^i⌋ of the full size, at least 1, r uniform in [2, 4) and
    drawn anew for each level, and enlarged bilinearly. A level that is 1 latent wide or high is the
    last; what would follow is 0.
    Source: J. Whitaker, "Multi-Resolution Noise for Diffusion Model Training" (2023), in the form
    of kohya's sd-scripts since May 2023; before, each level was a share of the level above it.

    Args:
        shape: (C, h, w) of the latents.
        iterations: L, how many levels are wanted. The first ones don't depend on it.
        draws: Where the random numbers come from.

    Returns:
        (L, C, h, w).
    """
    channels, height, width = shape
    levels = torch.zeros((iterations, *shape))
    for level in range(iterations):
        ratio = 2.0 + 2.0 * float(torch.rand((), generator=draws))
        high, wide = max(1, int(height / ratio**level)), max(1, int(width / ratio**level))
        coarse = torch.randn((1, channels, high, wide), generator=draws)
        levels[level] = interpolate(coarse, (height, width), mode="bilinear")[0]
        if high == 1 or wide == 1:
            break
    return levels


def pyramid_noise(noise: Tensor, levels: Tensor, discount: float) -> Tensor:
    """Noise with structure at all scales: (ε + Σ discount^i · level_i), scaled to unit deviation.

    Source: as ``pyramid_levels``. There the deviation is taken over the whole batch; here over each
    image, so that an image's noise doesn't depend on what else is in its batch.

    Args:
        noise: ε, (B, C, h, w).
        levels: (B, L, C, h, w).
        discount: In (0, 1); a smaller one makes less of the coarse levels.

    Returns:
        (B, C, h, w).
    """
    powers = discount ** torch.arange(levels.shape[1], device=noise.device, dtype=noise.dtype)
    mixed = noise + (powers.view(1, -1, 1, 1, 1) * levels).sum(dim=1)  # (B, C, h, w)
    return mixed / mixed.std(dim=(1, 2, 3), keepdim=True)


def perturbed_noise(noise: Tensor, perturbation: Tensor, gamma: float) -> Tensor:
    """Noise for the network's input alone: ε + γ ξ, while the target stays ε.

    Source: "Input Perturbation Reduces Exposure Bias in Diffusion Models", arXiv 2301.11706.

    Args:
        noise: ε, (B, C, h, w).
        perturbation: ξ, standard normal, (B, C, h, w).
        gamma: γ; 0.1 in the paper; 0 returns the noise itself.
    """
    return noise if gamma == 0 else noise + gamma * perturbation


def per_image(alphas_cumprod: Tensor, timesteps: Tensor, latents: Tensor) -> Tensor:
    """ᾱ at each image's timestep in the latents' type, (B, 1, 1, 1)."""
    return alphas_cumprod[timesteps].to(latents.dtype).view(-1, 1, 1, 1)
