"""Pretrain pocket's autoencoder: 64 px RGB to 16x16 latents of 8 channels.

Shapes: B batch; images ``(B, 3, 64, 64)`` in [-1, 1]; latents ``(B, 8, 16, 16)``.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from lora_lab.pocket.loop import Fit, fit_network

FIT = Fit(
    steps=6_000,
    lr=3e-3,
    warmup=100,
    weight_decay=0.0,
    ema=0.999,
    checkpoint_every=200,
    muon=True,
    bfloat16=True,
)
BATCH = 8
KL_WEIGHT = 1e-3
LATENTS = 8
START_LOGVAR = -6.0


def build_vae() -> AutoencoderKL:
    """An untrained autoencoder with Stable Diffusion's classes and pocket's widths.

    Its posterior starts narrow (standard deviation ``exp(START_LOGVAR / 2)``): from the usual
    width of 1 the first thousand steps would go into outgrowing the posterior's own noise.
    """
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=LATENTS,
        norm_num_groups=8,
        sample_size=64,
    )
    with torch.no_grad():
        vae.quant_conv.weight[LATENTS:].zero_()
        vae.quant_conv.bias[LATENTS:].fill_(START_LOGVAR)
    return vae


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 ``(B, 64, 64, 3)`` to float ``(B, 3, 64, 64)`` in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _batch(images: np.ndarray, step: int) -> Tensor:
    """Batch ``step``: random images, mirrored or with exchanged colour channels at times."""
    rng = np.random.default_rng([step, 1])
    chosen = images[rng.integers(len(images), size=BATCH)]
    for i in range(BATCH):
        if rng.random() < 0.5:
            chosen[i] = chosen[i, :, ::-1]
        if rng.random() < 0.25:
            chosen[i] = chosen[i][..., rng.permutation(3)]
    return to_tensor(np.ascontiguousarray(chosen))


def _reconstruction_loss(decoded: Tensor, x: Tensor) -> Tensor:
    return 4 * F.mse_loss(decoded, x) + 0.25 * F.l1_loss(decoded, x)


def train_vae(
    images: np.ndarray, checkpoint: Path, device: torch.device, fit: Fit = FIT
) -> AutoencoderKL:
    """Train the autoencoder and set its ``scaling_factor`` so that latents have unit variance."""
    torch.manual_seed(0)
    vae = build_vae().to(device)

    def loss_at(step: int) -> Tensor:
        x = _batch(images, step)  # (B, 3, 64, 64)
        noise = torch.randn((BATCH, LATENTS, 16, 16), generator=torch.Generator().manual_seed(step))
        x, noise = x.to(device), noise.to(device)
        moments = vae.encode(x).latent_dist
        decoded = vae.decode(moments.mean + moments.std * noise).sample
        kl = moments.kl().mean() / x[0].numel()
        return _reconstruction_loss(decoded, x) + KL_WEIGHT * kl

    fit_network(vae, loss_at, fit, checkpoint)
    latents = torch.cat([_latents(vae, images[i : i + 64]) for i in range(0, len(images), 2560)])
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    return vae


@torch.inference_mode()
def _latents(vae: AutoencoderKL, images: np.ndarray) -> Tensor:
    """Posterior means ``(B, 8, 16, 16)`` of uint8 images, on the CPU."""
    return vae.encode(to_tensor(images).to(vae.device)).latent_dist.mean.cpu()


def encode_images(vae: AutoencoderKL, images: np.ndarray) -> Tensor:
    """Scaled posterior means ``(N, 8, 16, 16)`` of uint8 images ``(N, 64, 64, 3)``."""
    latents = torch.cat([_latents(vae, images[i : i + 64]) for i in range(0, len(images), 64)])
    return (latents * vae.config.scaling_factor).contiguous()


@torch.inference_mode()
def fidelity(vae: AutoencoderKL, images: np.ndarray) -> tuple[float, float]:
    """How well the posterior's mean brings ``images`` back.

    Returns:
        mean peak signal-to-noise ratio in dB, and mean structural similarity (Wang et al. 2004)
        with its usual Gaussian window of 11 pixels.
    """
    ratios, similarities = [], []
    for i in range(0, len(images), 64):
        x = to_tensor(images[i : i + 64]).to(vae.device)
        decoded = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        error = ((decoded - x) / 2).square().mean(dim=(1, 2, 3))
        ratios += (-10 * error.log10()).tolist()
        similarity = structural_similarity_index_measure(
            decoded, x, data_range=(-1.0, 1.0), reduction="none"
        )
        similarities += torch.atleast_1d(similarity).tolist()
    return float(np.mean(ratios)), float(np.mean(similarities))
