"""Images from a base model, with or without LoRAs merged into it.

Shapes: B images, T chunks of a prompt, C hidden size of the text encoder, h and w the sides of the
latents.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lora_lab.base_model import BaseModel, encode_prompt_hidden
from lora_lab.errors import LabError
from lora_lab.prompts import apply_weights, parse_prompt, tokenize
from lora_lab.sampling.samplers import image_noise, make_sampler

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageRequest:
    """One image to be made."""

    prompt: str
    negative: str
    seed: int


@dataclass(frozen=True)
class DrawSettings:
    """What the images of a batch share."""

    sampler: str
    steps: int
    guidance: float
    width: int
    height: int
    clip_skip: int
    batch_size: int


@dataclass(frozen=True)
class Drawn:
    """An image, or why there is none."""

    image: Image.Image | None
    problem: str | None


@torch.inference_mode()
def draw_images(
    base: BaseModel, requests: Sequence[ImageRequest], settings: DrawSettings
) -> list[Drawn]:
    """Make images, several at once.

    Equal requests in the same order give equal images. Other company in a batch changes an image by
    rounding only.

    Args:
        base: The model as it stands, LoRAs included.
        requests: What to draw.
        settings: Sampler, size and so on, for all of them.

    Returns:
        One result a request, in their order. An image with NaN comes back as a problem.

    Raises:
        LabError: Size, sampler or clip skip do not suit the model.
    """
    check_settings(base, settings)
    prompts = {text for request in requests for text in (request.prompt, request.negative)}
    hidden = encode_prompts(base, sorted(prompts), settings.clip_skip)
    drawn: dict[int, Drawn] = {}
    lengths = [(len(hidden[r.prompt]), len(hidden[r.negative])) for r in requests]
    for batch in batches(lengths, settings.batch_size):
        chosen = [requests[index] for index in batch]
        latents = _sample(base, chosen, hidden, settings)
        drawn.update(zip(batch, _decode(base, latents), strict=True))
    return [drawn[index] for index in range(len(requests))]


def batches(lengths: Sequence[tuple[int, int]], batch_size: int) -> list[list[int]]:
    """Put prompts of equal length together, in batches of nearly equal size.

    Args:
        lengths: Chunks of each image's prompt and of its negative prompt.
        batch_size: The most images in a batch.

    Returns:
        Indices of the images, batch by batch.
    """
    result = []
    for length in sorted(set(lengths)):
        indices = [index for index, other in enumerate(lengths) if other == length]
        parts = ceil(len(indices) / batch_size)
        edges = [len(indices) * part // parts for part in range(parts + 1)]
        result += [indices[a:b] for a, b in pairwise(edges)]
    return result


def check_settings(base: BaseModel, settings: DrawSettings) -> None:
    """Refuse settings that the model cannot draw with.

    Raises:
        LabError: Width or height is not a multiple of what UNet and VAE divide by, the text encoder
            has no such layer, or the sampler is unknown.
    """
    levels = len(base.unet.config["block_out_channels"]) - 1
    unit = base.latent_factor * 2**levels
    for name, value in (("width", settings.width), ("height", settings.height)):
        if value < unit or value % unit:
            raise LabError(
                f"sampling.{name} must be a multiple of {unit} for {base.name}, got {value}"
            )
    layers = base.text_encoder.config.num_hidden_layers
    if not 1 <= settings.clip_skip <= layers:
        raise LabError(
            f"sampling.clip_skip must be from 1 to {layers} for {base.name}, "
            f"got {settings.clip_skip}"
        )
    make_sampler(settings.sampler, base.noise_scheduler, settings.steps, [0])


def encode_prompts(base: BaseModel, prompts: Iterable[str], clip_skip: int) -> dict[str, Tensor]:
    """Encode prompts with their weights.

    Returns:
        Prompt -> (T, 77, C).
    """
    hidden = {}
    for prompt in prompts:
        parsed = parse_prompt(prompt)
        for tag in parsed.loras:
            log.warning("<lora:%s> in a prompt is not loaded: name the file with lora=", tag.name)
        chunks = tokenize(parsed, base.tokenizer)
        states = encode_prompt_hidden(base.text_encoder, chunks.input_ids, clip_skip)
        hidden[prompt] = apply_weights(states, chunks.weights)
    return hidden


def _sample(
    base: BaseModel,
    requests: Sequence[ImageRequest],
    hidden: dict[str, Tensor],
    settings: DrawSettings,
) -> Tensor:
    """Latents of finished images, (B, 4, h, w)."""
    height = settings.height // base.latent_factor
    width = settings.width // base.latent_factor
    sampler = make_sampler(
        settings.sampler, base.noise_scheduler, settings.steps, [r.seed for r in requests]
    )
    generators = [torch.Generator().manual_seed(request.seed) for request in requests]
    channels = base.unet.config["in_channels"]
    noise = torch.stack([image_noise(g, channels, height, width) for g in generators])
    latents = noise * sampler.initial_scale
    prompt = torch.stack([hidden[r.prompt].flatten(0, 1) for r in requests])  # (B, T * 77, C)
    negative = torch.stack([hidden[r.negative].flatten(0, 1) for r in requests])
    for timestep in sampler.timesteps:
        model_input = sampler.model_input(latents, timestep)
        noise_pred = guided_noise(base, model_input, timestep, prompt, negative, settings.guidance)
        latents = sampler.step(noise_pred, timestep, latents, generators)
    return latents


def guided_noise(
    base: BaseModel,
    model_input: Tensor,
    timestep: Tensor,
    prompt: Tensor,
    negative: Tensor,
    guidance_scale: float,
) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598, eq. 6, with scale = 1 + w).

    Args:
        base: Its UNet predicts the noise.
        model_input: (B, 4, h, w).
        timestep: ().
        prompt: (B, T * 77, C).
        negative: (B, T' * 77, C).
        guidance_scale: 1 leaves out the negative prompt, and its cost.

    Returns:
        (B, 4, h, w).
    """
    if guidance_scale == 1:
        return base.unet(model_input, timestep, prompt, return_dict=False)[0]
    if prompt.shape == negative.shape:
        states = torch.cat([negative, prompt])
        both = base.unet(torch.cat([model_input] * 2), timestep, states, return_dict=False)[0]
        without, with_prompt = both.chunk(2)
    else:
        without = base.unet(model_input, timestep, negative, return_dict=False)[0]
        with_prompt = base.unet(model_input, timestep, prompt, return_dict=False)[0]
    return without + guidance_scale * (with_prompt - without)


def _decode(base: BaseModel, latents: Tensor) -> list[Drawn]:
    """Images from latents (B, 4, h, w); those that are not finite become problems."""
    latents = latents / base.vae.config["scaling_factor"]
    pixels = base.vae.decode(latents, return_dict=False)[0]  # (B, 3, 8h, 8w) for factor 8
    drawn = []
    for image in pixels:
        if torch.isfinite(image).all():
            drawn.append(Drawn(to_image(image), None))
        else:
            drawn.append(Drawn(None, "the image came out as NaN"))
    return drawn


def to_image(pixels: Tensor) -> Image.Image:
    """A picture from values between -1 and 1, (3, H, W)."""
    values = (pixels / 2 + 0.5).clamp(0, 1).permute(1, 2, 0) * 255
    return Image.fromarray(values.round().numpy().astype(np.uint8))
