"""A classifier that reads from a portrait what it shows, trained on drawn portraits alone.

It states its own accuracy on portraits that it never saw. Beside what pretraining draws it knows
what is withheld from it: the person's hair, scar and print, each drawn independently of the others,
so that one is never guessed from another.

Shapes: B batch.
"""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora_lab.pocket import attributes as words
from lora_lab.pocket.attributes import Attributes, draw_attributes, with_changes
from lora_lab.pocket.loop import Fit, fit_network
from lora_lab.pocket.vae import to_tensor

READ: dict[str, list[str]] = {
    "background": [*words.BACKGROUNDS],
    "hair": [*words.HAIR, *words.WITHHELD_HAIR],
    "hair_color": [*words.HAIR_COLORS, *words.WITHHELD_HAIR_COLORS],
    "skin": [*words.SKIN],
    "garment": [*words.GARMENTS],
    "garment_color": [*words.COLORS],
    "glasses": [*words.GLASSES],
    "mouth": [*words.MOUTHS],
    "eyes": [*words.EYES],
    "scar": [*words.SCARS, *words.WITHHELD_SCARS],
    "print": [*words.PRINTS, *words.WITHHELD_PRINTS],
}
"""What is read, and its values in the order of their class numbers."""
FIT = Fit(
    steps=3000, lr=2e-3, warmup=100, weight_decay=0.01, ema=0.99, checkpoint_every=250, muon=True
)
BATCH = 64
WIDTHS = (12, 48, 96, 128, 128)
SHIFT = 2
"""Pixels by which a training image is moved at most, so that none is learnt by heart."""


class Reader(nn.Module):
    """A small convolutional network with one head an attribute."""

    def __init__(self) -> None:
        super().__init__()
        # Necklines are a pixel wide: four pixels become one without a loss before any stride.
        self.body = nn.Sequential(
            nn.PixelUnshuffle(2),
            *(
                nn.Sequential(
                    nn.Conv2d(a, b, 3, stride=1 if a == WIDTHS[0] else 2, padding=1),
                    nn.GroupNorm(8, b),
                    nn.SiLU(),
                )
                for a, b in pairwise(WIDTHS)
            ),
        )
        self.heads = nn.ModuleDict(
            {name: nn.Linear(WIDTHS[-1] * 16, len(values)) for name, values in READ.items()}
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits of each attribute from images ``(B, 3, 64, 64)`` in [-1, 1]."""
        features = self.body(images).flatten(1)  # (B, 128 * 16)
        return {name: head(features) for name, head in self.heads.items()}


def draw_mixed(rng: random.Random) -> Attributes:
    """A portrait that has each of the person's withheld features, or has it not."""
    a = draw_attributes(rng)
    withheld = {
        "hair": words.WITHHELD_HAIR,
        "hair_color": words.WITHHELD_HAIR_COLORS,
        "scar": words.WITHHELD_SCARS,
        "print": words.WITHHELD_PRINTS,
    }
    own = {name: rng.choice(list(v)) for name, v in withheld.items() if rng.random() < 0.4}
    return with_changes(a, **own)


def visible(a: Attributes) -> dict[str, bool]:
    """Whether the portrait shows each attribute at all."""
    shown = dict.fromkeys(READ, True)
    shown["hair_color"] = a.hair != "bald"
    shown["eyes"] = a.glasses != "sunglasses"
    return shown


def _classes(drawn: list[Attributes]) -> tuple[Tensor, Tensor]:
    """Class numbers ``(N, A)``, and whether each can be seen ``(N, A)``."""
    classes = [[values.index(getattr(a, name)) for name, values in READ.items()] for a in drawn]
    return torch.tensor(classes), torch.tensor([list(visible(a).values()) for a in drawn])


def moved(images: Tensor, rng: random.Random) -> Tensor:
    """Images ``(B, 3, H, W)`` moved by up to ``SHIFT`` pixels, their edges repeated."""
    height, width = images.shape[2:]
    padded = F.pad(images, (SHIFT,) * 4, mode="replicate")
    corners = [(rng.randint(0, 2 * SHIFT), rng.randint(0, 2 * SHIFT)) for _ in images]
    return torch.stack(
        [padded[i, :, y : y + height, x : x + width] for i, (y, x) in enumerate(corners)]
    )


def train_reader(
    images: np.ndarray, drawn: list[Attributes], checkpoint: Path, device: torch.device
) -> Reader:
    """Train the classifier on drawn portraits of all styles."""
    torch.manual_seed(0)
    reader = Reader().to(device)
    classes, seen = _classes(drawn)

    def loss_at(step: int) -> Tensor:
        rng = random.Random(f"reader/{step}")
        chosen = rng.sample(range(len(drawn)), BATCH)
        x = moved(to_tensor(images[chosen]), rng)
        x = x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(step))
        wanted, counted = classes[chosen].to(device), seen[chosen].to(device)
        losses = [
            (F.cross_entropy(logits, wanted[:, i], reduction="none") * counted[:, i]).mean()
            for i, logits in enumerate(reader(x.to(device)).values())
        ]
        return torch.stack(losses).sum()

    fit_network(reader, loss_at, FIT, checkpoint)
    return reader


@torch.inference_mode()
def read(reader: Reader, images: np.ndarray) -> list[dict[str, object]]:
    """What each image ``(N, 64, 64, 3)`` shows: a value of ``READ`` an attribute."""
    device = next(reader.parameters()).device
    found: list[dict[str, object]] = []
    for i in range(0, len(images), 128):
        logits = reader(to_tensor(images[i : i + 128]).to(device))
        numbers = {name: x.argmax(1).tolist() for name, x in logits.items()}
        found += [
            {name: READ[name][numbers[name][j]] for name in READ}
            for j in range(len(images[i : i + 128]))
        ]
    return found


def agreement(found: list[dict[str, object]], wanted: list[Attributes]) -> dict[str, float]:
    """Share of images that show what was ``wanted``, of those that can show it.

    ``garment`` counts kind and colour together; ``glasses`` counts whether there are any.
    """
    hits: dict[str, list[bool]] = {name: [] for name in READ if name != "garment_color"}
    for seen, a in zip(found, wanted, strict=True):
        shown = visible(a)
        for name in hits:
            if not shown[name]:
                continue
            hit = seen[name] == getattr(a, name)
            if name == "garment":
                hit = hit and seen["garment_color"] == a.garment_color
            if name == "glasses":
                hit = (seen[name] == "no glasses") == (a.glasses == "no glasses")
            hits[name].append(hit)
    return {name: float(np.mean(values)) for name, values in hits.items()}
