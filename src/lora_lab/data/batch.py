"""What a training step computes on.

Shapes: B images a batch, C latent channels, h and w latent sides, L tokens a caption or chunk, T
chunks.
"""

from typing import TypedDict

from torch import Tensor


class Batch(TypedDict):
    """What a training step computes on."""

    latents: Tensor
    """(B, C, h, w)"""
    noise: Tensor
    """Standard normal, (B, C, h, w)."""
    offset_noise: Tensor
    """Standard normal, for the noise offset, (B, C, 1, 1)."""
    offset_strength: Tensor
    """Uniform in [0, 1), for a noise offset of random size, (B,)."""
    noise_levels: Tensor | None
    """Coarse noise of each level, (B, levels, C, h, w); None without pyramid noise."""
    perturbation: Tensor | None
    """Standard normal, (B, C, h, w); None without input perturbation."""
    timesteps: Tensor
    """int64, (B,)."""
    input_ids: Tensor
    """int64, (B, L), or (B, T, L) where captions have chunks or weights."""
    token_weights: Tensor | None
    """What each token's hidden state is multiplied by, (B, T, L); None without weights."""
    loss_weights: Tensor
    """What each image's loss is multiplied by: 1, or the prior's weight, (B,)."""
    masks: Tensor | None
    """Weights in [0, 1] of the latent pixels in the loss, (B, 1, h, w); None without masks."""
    keys: list[str]
    """The images' keys."""
    step: int
    """Optimizer step that the batch belongs to, from 1."""
    epoch: int
    """From 1."""
    step_images: int
    """Images in the whole step, those of its other batches included."""
    ends_step: bool
    """Whether the optimizer steps after this batch."""
    ends_epoch: bool
    """Whether it is the last batch of its epoch."""
