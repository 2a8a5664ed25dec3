"""Image metrics as pure functions of embeddings.

After DreamBooth (arXiv 2208.12242, sec. 4.1) and LyCORIS (arXiv 2309.14859, sec. 5). Embeddings
have length 1. A row of NaN is an image without what the encoder looks for (a face): its scores
are NaN and it takes no part in those of others.

Shapes: N images, R training images, D size of an embedding.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional import pairwise_cosine_similarity


def identity(images: Tensor, references: Tensor) -> Tensor:
    """Mean similarity of each image to the training images.

    Args:
        images: (N, D).
        references: (R, D).

    Returns:
        (N,), from -1 to 1.
    """
    known = references[torch.isfinite(references).all(dim=1)]
    if not len(known):
        return torch.full((len(images),), math.nan)
    return pairwise_cosine_similarity(images, known).mean(dim=1)


def prompt_agreement(images: Tensor, texts: Tensor) -> Tensor:
    """Similarity of each image to its own text (CLIP-T; CLIPScore / 100, arXiv 2104.08718).

    Args:
        images: (N, D).
        texts: (N, D).

    Returns:
        (N,)
    """
    return torch.nn.functional.cosine_similarity(images, texts, dim=1)


def diversity(images: Tensor) -> float:
    """Mean of 1 - similarity over all pairs of images of one prompt, (N, D); NaN below two."""
    known = images[torch.isfinite(images).all(dim=1)]
    if len(known) < 2:
        return math.nan
    similarity = pairwise_cosine_similarity(known, zero_diagonal=True)
    return 1 - float(similarity.sum()) / (len(known) * (len(known) - 1))


def vendi(images: Tensor) -> float:
    """Vendi score: the effective number of different images (arXiv 2210.02410, eq. 1).

    Args:
        images: (N, D).

    Returns:
        From 1 (all alike) to N; NaN without images.
    """
    known = images[torch.isfinite(images).all(dim=1)].double()
    if not len(known):
        return math.nan
    kernel = pairwise_cosine_similarity(known, zero_diagonal=False) / len(known)
    eigenvalues = torch.linalg.eigvalsh(kernel).clamp(min=0)
    shares = eigenvalues[eigenvalues > 0]
    return math.exp(float(-(shares * shares.log()).sum()))


def departure(images: Tensor, originals: Tensor) -> Tensor:
    """1 - similarity of each image to the base model's own image of the same prompt and noise.

    Args:
        images: (N, D).
        originals: (N, D).

    Returns:
        (N,)
    """
    return 1 - torch.nn.functional.cosine_similarity(images, originals, dim=1)


FORMULAS: dict[str, Callable[..., Any]] = {
    "identity": identity,
    "prompt_agreement": prompt_agreement,
    "diversity": diversity,
    "vendi": vendi,
    "departure": departure,
}
"""Name in the table of metrics (config/metrics.py) -> the formula: of the images' embeddings, and
of what they are held against unless that is each other."""
