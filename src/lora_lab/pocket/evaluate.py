"""How good pocket is, measured on seeds that pretraining never saw.

Prompts are captions of drawn portraits; what the images show is read by the classifier of
``reader``. How far generated images are from drawn ones is the kernel distance of their features.

Shapes: N and M images, D features.
"""

import random
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPModel

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.pocket.attributes import Attributes, caption, draw_attributes
from lora_lab.pocket.unet import CLIP_SKIP
from lora_lab.pocket.vae import to_tensor
from lora_lab.sampling.generate import DrawSettings, ImageRequest, draw_images

DRAWING = DrawSettings(
    sampler="DPM++ 2M Karras",
    steps=25,
    guidance=4.0,
    width=64,
    height=64,
    clip_skip=CLIP_SKIP,
    batch_size=25,
)


def held_out_prompts(count: int, seed: int) -> tuple[list[str], list[Attributes]]:
    """Prompts that name every attribute, and the portraits they describe."""
    rng = random.Random(f"held-out prompts/{seed}")
    drawn = [draw_attributes(rng) for _ in range(count)]
    return [caption(a, rng, keep=1.0) for a in drawn], drawn


def generate(base: BaseModel, prompts: Sequence[str]) -> np.ndarray:
    """One image a prompt ``(N, 64, 64, 3)``, prompt ``i`` with noise ``i``.

    Raises:
        ValueError: an image came out as NaN.
    """
    requests = [ImageRequest(prompt, "", i) for i, prompt in enumerate(prompts)]
    images = []
    for drawn, prompt in zip(draw_images(base, requests, DRAWING), prompts, strict=True):
        if drawn.image is None:
            raise ValueError(f"no image of {prompt!r}: {drawn.problem}")
        images.append(np.asarray(drawn.image))
    return np.stack(images)


def sheet(images: np.ndarray, columns: int = 10) -> Image.Image:
    """Images ``(N, 64, 64, 3)`` side by side; a last row that isn't full is left out."""
    rows = len(images) // columns
    side = images.shape[1]
    grid = images[: rows * columns].reshape(rows, columns, side, side, 3)
    return Image.fromarray(grid.transpose(0, 2, 1, 3, 4).reshape(rows * side, columns * side, 3))


@torch.inference_mode()
def image_features(clip: CLIPModel, images: np.ndarray) -> Tensor:
    """CLIP's image embeddings of unit length ``(N, D)``, on the CPU."""
    parts = []
    for i in range(0, len(images), 64):
        x = to_tensor(images[i : i + 64]).to(clip.device)
        pooled = clip.vision_model(pixel_values=x).pooler_output
        parts.append(torch.nn.functional.normalize(clip.visual_projection(pooled), dim=-1).cpu())
    return torch.cat(parts)


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """KID: the unbiased squared maximum mean discrepancy of two sets of features.

    The kernel is (x · y / D + 1)³ (Bińkowski et al. 2018, arXiv 1801.01401, section 4); for
    embeddings of unit length, which are taken √D times as long, that is (x · y + 1)³.

    Args:
        x: ``(N, D)``, of unit length.
        y: ``(M, D)``, of unit length.

    Returns:
        0 on average for two sets of one distribution; can be a little below.
    """

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a.double() @ b.double().T + 1) ** 3

    def within(features: Tensor) -> Tensor:
        values, count = kernel(features, features), len(features)
        return (values.sum() - values.diagonal().sum()) / (count * (count - 1))

    return (within(x) + within(y) - 2 * kernel(x, y).mean()).item()
