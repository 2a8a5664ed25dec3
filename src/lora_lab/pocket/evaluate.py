"""How good pocket is, measured on seeds that pretraining never saw.

Prompts are captions of drawn portraits; what the images show is read by a small classifier that is
trained on real renders and states its own accuracy on others.
"""

import logging
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_lab.pocket.attributes import CLASSES, Attributes, caption, draw_attributes
from lora_lab.pocket.loop import Fit, fit_network
from lora_lab.pocket.vae import to_tensor

log = logging.getLogger(__name__)

READ = ("background", "garment_color", "glasses")
FIT = Fit(steps=600, lr=2e-3, warmup=50, ema=0.98, checkpoint_every=600)
BATCH = 64


class Reader(nn.Module):
    """A small convolutional classifier of a portrait's background, garment colour and glasses."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 64, 96)
        self.body = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(8, b), nn.SiLU()
                )
                for a, b in pairwise(widths)
            )
        )
        self.heads = nn.ModuleDict({name: nn.Linear(96 * 16, len(CLASSES[name])) for name in READ})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of each attribute from images ``(B, 3, 64, 64)`` in [-1, 1]."""
        features = self.body(images).flatten(1)  # (B, 96 * 16)
        return {name: head(features) for name, head in self.heads.items()}


def _classes(drawn: list[Attributes]) -> dict[str, Tensor]:
    return {
        name: torch.tensor([CLASSES[name].index(getattr(a, name)) for a in drawn]) for name in READ
    }


def glasses_present(classes: Tensor) -> Tensor:
    """Whether each class number of ``glasses`` is a pair of glasses."""
    return classes != CLASSES["glasses"].index("no glasses")


def train_reader(images: np.ndarray, drawn: list[Attributes], checkpoint: Path) -> Reader:
    """Train the classifier on real renders of all styles."""
    torch.manual_seed(0)
    reader, wanted = Reader(), _classes(drawn)

    def loss_at(step: int) -> Tensor:
        chosen = random.Random(f"reader/{step}").sample(range(len(drawn)), BATCH)
        generator = torch.Generator().manual_seed(step)
        x = to_tensor(images[chosen])
        x = x + 0.05 * torch.randn(x.shape, generator=generator)
        return sum(
            (F.cross_entropy(v, wanted[k][chosen]) for k, v in reader(x).items()), torch.zeros(())
        )

    fit_network(reader, loss_at, FIT, checkpoint)
    return reader


def accuracy(reader: Reader, images: np.ndarray, drawn: list[Attributes]) -> dict[str, float]:
    """Share of ``images`` ``(N, 64, 64, 3)`` that show what ``drawn`` says."""
    with torch.inference_mode():
        read = {k: v.argmax(1) for k, v in reader(to_tensor(images)).items()}
    wanted = _classes(drawn)
    return {
        "background": (read["background"] == wanted["background"]).float().mean().item(),
        "garment_color": (read["garment_color"] == wanted["garment_color"]).float().mean().item(),
        "glasses": (glasses_present(read["glasses"]) == glasses_present(wanted["glasses"]))
        .float()
        .mean()
        .item(),
    }


def held_out_prompts(count: int, seed: int) -> tuple[list[str], list[Attributes]]:
    """Prompts that name every attribute, and the portraits they describe."""
    rng = random.Random(f"held-out prompts/{seed}")
    drawn = [draw_attributes(rng) for _ in range(count)]
    return [caption(a, rng, keep=1.0) for a in drawn], drawn
