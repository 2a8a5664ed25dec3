"""Images from a base model as it stands, with or without LoRAs.

Shapes: B images, h and w the sides of the latents.
"""

import threading
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.config import SamplingConfig
from lora_lab.errors import LabError
from lora_lab.prompts import Embedding
from lora_lab.sampling.samplers import image_noise, make_sampler, unet_calls
from lora_lab.text.conditioning import Conditioning, Guidance, encode


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


def draw_settings(config: SamplingConfig) -> DrawSettings:
    """What all images of a config share, unless an axis of a grid changes it."""
    return DrawSettings(
        sampler=config.sampler,
        steps=config.steps,
        guidance=config.guidance,
        width=config.width,
        height=config.height,
        clip_skip=config.clip_skip,
        batch_size=config.batch_size,
    )


@dataclass(frozen=True)
class Drawn:
    """An image, or why there is none."""

    image: Image.Image | None
    problem: str | None
    place: tuple[int, int]
    """(number in its batch, images of the batch)."""


DECODE_PIXELS = 2 * 768 * 768
"""Pixels that the VAE decodes at once: its activations take about 2 kB a pixel."""
TILE_PIXELS = 1536 * 1536
"""Larger images are decoded in overlapping tiles."""

EncodedCache = dict[Hashable, Conditioning]
"""What was encoded already with the text encoder as it stands."""


@dataclass(frozen=True)
class EncodedRequest:
    """An image to be made, its prompts encoded."""

    seed: int
    prompt: Conditioning
    negative: Conditioning

    @property
    def alike(self) -> Hashable:
        """What images must share to be drawn in one batch.

        The tokens of their prompts, and whether a prompt is one part of weight 1, which needs no
        negative prompt at guidance 1.
        """
        plain = [part.weight for part in self.prompt.parts] == [1.0]
        return self.prompt.lengths, self.negative.lengths, plain


@torch.inference_mode()
def draw_images(
    base: BaseModel,
    requests: Sequence[ImageRequest],
    settings: DrawSettings,
    embeddings: Sequence[Embedding] = (),
) -> list[Drawn]:
    """Make images of a model as it stands.

    By rounding an image depends on its place in a batch and on the batch's size, and on nothing
    else of the images that it is drawn with.

    Args:
        base: The model, LoRAs included.
        requests: What to draw.
        settings: Of all of them.
        embeddings: Textual inversions that the prompts may name.

    Returns:
        One result a request. An image with NaN comes back as a problem.

    Raises:
        LabError: The settings do not suit the model.
    """
    check_settings(base, settings)
    cache: EncodedCache = {}
    asked = [encode_request(base, request, settings, embeddings, cache) for request in requests]
    drawn: dict[int, Drawn] = {}
    for batch in batches([one.alike for one in asked], settings.batch_size):
        drawn |= zip(batch, draw_batch(base, [asked[i] for i in batch], settings), strict=True)
    return [drawn[index] for index in range(len(requests))]


@torch.inference_mode()
def draw_batch(
    base: BaseModel,
    asked: Sequence[EncodedRequest],
    settings: DrawSettings,
    stop: threading.Event | None = None,
) -> list[Drawn]:
    """Make the images of one batch.

    Args:
        base: The model as it stands.
        asked: Images that are `alike`.
        settings: Of all of them.
        stop: Once it is set, the images are no longer wanted.

    Returns:
        One result an image. An image with NaN comes back as a problem.

    Raises:
        CancelledError: `stop` was set.
    """
    pixels = _decode(base, _sample(base, asked, settings, stop))
    return [_drawn(image, (place, len(asked))) for place, image in enumerate(pixels)]


def batches(lengths: Sequence[Hashable], batch_size: int) -> list[list[int]]:
    """Put prompts of equal length together, in batches of nearly equal size.

    Args:
        lengths: What each image shares with those that it can be drawn with, such as its tokens.
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
    unit = base.size_step
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


@torch.inference_mode()
def encode_request(
    base: BaseModel,
    request: ImageRequest,
    settings: DrawSettings,
    embeddings: Sequence[Embedding] = (),
    cache: EncodedCache | None = None,
) -> EncodedRequest:
    """Encode a prompt and its negative prompt.

    Args:
        base: Whose text encoder is used as it stands.
        request: Whose prompts are encoded.
        settings: Which hidden state; the calls that edits count in.
        embeddings: Textual inversions that the prompts may name.
        cache: Prompts that were encoded with this text encoder; learns these.
    """
    calls = unet_calls(settings.sampler, settings.steps)
    known: EncodedCache = {} if cache is None else cache

    def encoded(text: str, composed: bool) -> Conditioning:
        key = (text, settings.clip_skip, calls, composed)
        if key not in known:
            known[key] = encode(
                base,
                text,
                clip_skip=settings.clip_skip,
                calls=calls,
                embeddings=embeddings,
                composed=composed,
            ).to(base.unet.device)
        return known[key]

    return EncodedRequest(
        request.seed, encoded(request.prompt, True), encoded(request.negative, False)
    )


def _sample(
    base: BaseModel,
    asked: Sequence[EncodedRequest],
    settings: DrawSettings,
    stop: threading.Event | None,
) -> Tensor:
    """Latents of finished images, (B, 4, h, w)."""
    height = settings.height // base.latent_factor
    width = settings.width // base.latent_factor
    sampler = make_sampler(
        settings.sampler,
        base.noise_scheduler,
        settings.steps,
        [one.seed for one in asked],
        base.unet.device,
    )
    generators = [torch.Generator().manual_seed(one.seed) for one in asked]
    channels = base.unet.config["in_channels"]
    noise = torch.stack([image_noise(g, channels, height, width) for g in generators])
    latents = noise.to(base.unet.device) * sampler.initial_scale
    guidance = Guidance(
        base.unet,
        [one.prompt for one in asked],
        [one.negative for one in asked],
        settings.guidance,
    )
    for call, timestep in enumerate(sampler.timesteps):
        if stop is not None and stop.is_set():
            raise CancelledError
        model_input = sampler.model_input(latents, timestep)
        noise_pred = guidance.noise_pred(model_input, timestep, call).float()
        latents = sampler.step(noise_pred, timestep, latents, generators)
    return latents


def _decode(base: BaseModel, latents: Tensor) -> Iterator[Tensor]:
    """Pixels (3, H, W) of each of the latents (B, 4, h, w), as many at once as memory allows."""
    latents = latents / base.vae.config["scaling_factor"]
    pixels = latents[0, 0].numel() * base.latent_factor**2
    if pixels > TILE_PIXELS:
        base.vae.enable_tiling()
    for part in latents.split(max(1, DECODE_PIXELS // pixels)):
        yield from base.vae.decode(part, return_dict=False)[0]  # (b, 3, 8h, 8w) for factor 8
    base.vae.disable_tiling()


def _drawn(pixels: Tensor, place: tuple[int, int]) -> Drawn:
    """The image of pixels (3, H, W), unless they are not finite."""
    if torch.isfinite(pixels).all():
        return Drawn(to_image(pixels), None, place)
    return Drawn(None, "the image came out as NaN", place)


def to_image(pixels: Tensor) -> Image.Image:
    """A picture from values between -1 and 1, (3, H, W)."""
    values = (pixels / 2 + 0.5).clamp(0, 1).permute(1, 2, 0) * 255
    return Image.fromarray(values.round().cpu().numpy().astype(np.uint8))
