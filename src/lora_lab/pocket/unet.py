"""Pretrain pocket's denoiser, and fine-tune it towards the two styles.

ε-prediction on cached latents with Stable Diffusion 1.5's noise schedule, min-SNR weights
(γ = 5, arXiv 2303.09556), 10 % empty captions for classifier-free guidance, averaged weights. The
text encoder is frozen.

Shapes: B batch; latents ``(B, 8, 16, 16)``; text states ``(B, 77, 128)``.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from lora_lab.checkpoint.base_model import encode_prompt_hidden
from lora_lab.objective import add_noise, min_snr_weights, signal_to_noise, squared_error
from lora_lab.pocket.attributes import Attributes, caption
from lora_lab.pocket.loop import Fit, fit_network

FIT = Fit(
    steps=4_000,
    lr=2e-3,
    warmup=100,
    weight_decay=0.01,
    ema=0.998,
    checkpoint_every=100,
    muon=True,
    bfloat16=True,
)
GO_ON_FIT = replace(FIT, steps=2_800, lr=1.5e-3)
"""From CLIP's text tower, with which the denoiser begins, to the text encoder that it keeps."""
STYLE_FIT = replace(FIT, steps=300, lr=5e-4, warmup=30, ema=0.99)
BATCH = 64
EMPTY_CAPTIONS = 0.1
GAMMA = 5.0
CLIP_SKIP = 2
"""The hidden state that the denoiser reads: the last but one, as the guide trains."""


def build_unet() -> UNet2DConditionModel:
    """An untrained UNet with Stable Diffusion's classes and pocket's widths."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        block_out_channels=(64, 128, 112),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_noise_scheduler() -> DDPMScheduler:
    """Stable Diffusion 1.5's training schedule."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="epsilon",
        steps_offset=1,
    )


@dataclass(frozen=True)
class Pretraining:
    """What a denoiser learns from."""

    latents: Tensor
    """``(N, 8, 16, 16)``."""
    drawn: list[Attributes]
    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel


def _loss_of(unet: UNet2DConditionModel, data: Pretraining, name: str) -> Callable[[int], Tensor]:
    alphas_cumprod, device = build_noise_scheduler().alphas_cumprod, unet.device

    def loss_at(step: int) -> Tensor:
        rng = random.Random(f"{name}/{step}")
        generator = torch.Generator().manual_seed(rng.getrandbits(62))
        chosen = rng.sample(range(len(data.drawn)), BATCH)
        texts = [
            "" if rng.random() < EMPTY_CAPTIONS else caption(data.drawn[i], rng) for i in chosen
        ]
        tokens = data.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
        latents = data.latents[chosen]
        noise = torch.randn(latents.shape, generator=generator)
        # One timestep from each of B equal strata: less variance than independent draws.
        strata = torch.arange(BATCH) + torch.rand(BATCH, generator=generator)
        timesteps = (strata * (1000 / BATCH)).long().clamp(max=999)
        noisy = add_noise(latents, noise, timesteps, alphas_cumprod)
        with torch.no_grad():
            states = encode_prompt_hidden(data.text_encoder, tokens.input_ids.to(device), CLIP_SKIP)
        predicted = unet(noisy.to(device), timesteps.to(device), states).sample
        snr = signal_to_noise(alphas_cumprod)[timesteps]  # (B,)
        weights = min_snr_weights(snr, GAMMA, "epsilon").to(device)
        return (squared_error(predicted, noise.to(device)) * weights).mean()

    return loss_at


def train_unet(
    data: Pretraining,
    checkpoint: Path,
    name: str,
    fit: Fit,
    start: UNet2DConditionModel | None = None,
) -> UNet2DConditionModel:
    """Train a denoiser from nothing, or from the weights of ``start``, where the encoder is."""
    torch.manual_seed(0)
    unet = build_unet().to(data.text_encoder.device)
    # On a processor the backward pass of fused attention takes longer than these small products.
    unet.set_attn_processor(AttnProcessor())
    if start is not None:
        unet.load_state_dict(start.state_dict())
    fit_network(unet, _loss_of(unet, data, name), fit, checkpoint)
    return unet
