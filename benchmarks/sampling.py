"""Images a second: ours, against the UNet calls, an Euler update and the VAE in plain PyTorch."""

import time

import torch
from torch import Tensor

from benchmarks.settings import sampling_settings, train_settings
from benchmarks.table import Row, paired
from lora_lab.base_model import BaseModel, encode_prompt_hidden, load_base
from lora_lab.config import SamplingConfig
from lora_lab.sampling.generate import DrawSettings, ImageRequest, draw_images

PROMPT = "a portrait of a person"


@torch.inference_mode()
def bare_images(base: BaseModel, settings: SamplingConfig, generator: torch.Generator) -> Tensor:
    """A batch of images without samplers, prompt weights or PNGs, (B, 3, H, W)."""
    count = settings.batch_size
    text = base.tokenizer(["", PROMPT], padding="max_length", return_tensors="pt").input_ids
    hidden = encode_prompt_hidden(base.text_encoder, text, settings.clip_skip)  # (2, 77, C)
    hidden = hidden.repeat_interleave(count, dim=0)
    height, width = (side // base.latent_factor for side in (settings.height, settings.width))
    channels = base.unet.config["in_channels"]
    latents = torch.randn((count, channels, height, width), generator=generator)
    timesteps = torch.linspace(999, 0, settings.steps).long()
    sigmas = (
        (1 - base.noise_scheduler.alphas_cumprod) / base.noise_scheduler.alphas_cumprod
    ).sqrt()
    for timestep, below in zip(timesteps, [*timesteps[1:], timesteps[-1]], strict=True):
        scaled = latents / (sigmas[timestep] ** 2 + 1).sqrt()
        both = base.unet(torch.cat([scaled, scaled]), timestep, hidden, return_dict=False)[0]
        without, with_prompt = both.chunk(2)
        noise_pred = without + settings.guidance * (with_prompt - without)
        latents = latents + (sigmas[below] - sigmas[timestep]) * noise_pred
    return base.vae.decode(latents / base.vae.config["scaling_factor"], return_dict=False)[0]


def measure(overrides: list[str], rounds: int) -> list[Row]:
    """Draws batches of ours and bare ones in turn; one row.

    Args:
        overrides: As for train.py; sampling.* are used, and the base of model.checkpoint.
        rounds: How many batches of each, after one to warm up.
    """
    settings = sampling_settings(overrides)
    base = load_base(train_settings(overrides).model.checkpoint)
    draw = DrawSettings(
        sampler=settings.sampler,
        steps=settings.steps,
        guidance=settings.guidance,
        width=settings.width,
        height=settings.height,
        clip_skip=settings.clip_skip,
        batch_size=settings.batch_size,
    )
    requests = [ImageRequest(PROMPT, "", seed) for seed in range(settings.batch_size)]
    generator = torch.Generator().manual_seed(0)
    ours, bare = [], []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        draw_images(base, requests, draw)
        middle = time.perf_counter()
        bare_images(base, settings, generator)
        ours.append(settings.batch_size / (middle - start))
        bare.append(settings.batch_size / (time.perf_counter() - middle))
    what = f"sampling, {settings.steps} steps, batch {settings.batch_size}"
    return [paired(what, ours[1:], bare[1:], "images/s")]
