"""Images from a base model, with or without LoRAs merged into it.

Shapes: B images, h and w the sides of the latents.
"""

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lora_lab.base_model import BaseModel
from lora_lab.conditioning import Conditioning, Guidance, encode
from lora_lab.errors import LabError
from lora_lab.prompts import Embedding
from lora_lab.sampling.samplers import image_noise, make_sampler, unet_calls

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
    base: BaseModel,
    requests: Sequence[ImageRequest],
    settings: DrawSettings,
    embeddings: Sequence[Embedding] = (),
) -> list[Drawn]:
    """Make images, several at once.

    Equal requests in the same order give equal images. Other company in a batch changes an image by
    rounding only.

    Args:
        base: The model as it stands, LoRAs included.
        requests: What to draw.
        settings: Sampler, size and so on, for all of them.
        embeddings: Textual inversions that the prompts may name.

    Returns:
        One result a request, in their order. An image with NaN comes back as a problem.

    Raises:
        LabError: Size, sampler or clip skip do not suit the model.
    """
    check_settings(base, settings)
    hidden = encode_requests(base, requests, settings, embeddings)
    drawn: dict[int, Drawn] = {}
    lengths = [
        (hidden.prompt[r.prompt].lengths, hidden.negative[r.negative].lengths) for r in requests
    ]
    for batch in batches(lengths, settings.batch_size):
        chosen = [requests[index] for index in batch]
        latents = _sample(base, chosen, hidden, settings)
        drawn.update(zip(batch, _decode(base, latents), strict=True))
    return [drawn[index] for index in range(len(requests))]


def batches(lengths: Sequence[Hashable], batch_size: int) -> list[list[int]]:
    """Put prompts of equal length together, in batches of nearly equal size.

    Args:
        lengths: What each image shares with those that it can be drawn with: its tokens.
        batch_size: The most images in a batch.

    Returns:
        Indices of the images, batch by batch.
    """
    result = []
    for length in dict.fromkeys(lengths):
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


@dataclass(frozen=True)
class Encoded:
    """The prompts of some requests as the UNet takes them."""

    prompt: dict[str, Conditioning]
    negative: dict[str, Conditioning]


def encode_requests(
    base: BaseModel,
    requests: Sequence[ImageRequest],
    settings: DrawSettings,
    embeddings: Sequence[Embedding] = (),
) -> Encoded:
    """Encode each prompt and each negative prompt once."""
    calls = unet_calls(settings.sampler, settings.steps)

    def encoded(texts: set[str], composed: bool) -> dict[str, Conditioning]:
        return {
            text: encode(
                base,
                text,
                clip_skip=settings.clip_skip,
                calls=calls,
                embeddings=embeddings,
                composed=composed,
            )
            for text in sorted(texts)
        }

    return Encoded(
        encoded({request.prompt for request in requests}, True),
        encoded({request.negative for request in requests}, False),
    )


def _sample(
    base: BaseModel,
    requests: Sequence[ImageRequest],
    hidden: Encoded,
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
    guidance = Guidance(
        base.unet,
        [hidden.prompt[request.prompt] for request in requests],
        [hidden.negative[request.negative] for request in requests],
        settings.guidance,
    )
    for call, timestep in enumerate(sampler.timesteps):
        model_input = sampler.model_input(latents, timestep)
        noise_pred = guidance.noise_pred(model_input, timestep, call)
        latents = sampler.step(noise_pred, timestep, latents, generators)
    return latents


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
