"""Pretrain pocket's CLIP: its text tower is where the text encoder starts, all of it is a metric.

The contrastive loss (Radford et al. 2021, arXiv 2103.00020) trains the pooled token alone; a
second, smaller loss asks each attribute from all token states through cross-attention, as a UNet
will, and from the image's patches.

Shapes: B batch, L tokens, P patches, D width.
"""

import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

from lora_lab.pocket.attributes import CLASSES, Attributes, compose
from lora_lab.pocket.loop import Fit, fit_network
from lora_lab.pocket.vae import to_tensor

FIT = Fit(steps=1600, lr=1e-3, warmup=100, weight_decay=0.02, ema=0.99, checkpoint_every=250)
BATCH = 64
WIDTH = 128


def build_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """An untrained CLIP of transformers' classes and pocket's sizes."""
    tower = dict(hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_attention_heads=4)
    text = CLIPTextConfig(
        **tower,
        num_hidden_layers=4,
        vocab_size=len(tokenizer),
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        projection_dim=WIDTH,
    )
    vision = CLIPVisionConfig(
        **tower, num_hidden_layers=4, image_size=64, patch_size=8, projection_dim=WIDTH
    )
    return CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH)
    )


class AttributeReader(nn.Module):
    """Reads attributes, each a key of ``classes``, from a sequence of states by a query each."""

    def __init__(self, classes: dict[str, list[str]] = CLASSES) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(classes), WIDTH) * 0.02)
        self.attention = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.heads = nn.ModuleList(nn.Linear(WIDTH, len(values)) for values in classes.values())

    def forward(self, states: Tensor) -> list[Tensor]:
        """Logits of each attribute's classes from ``states`` ``(B, L, D)``."""
        queries = self.queries.expand(len(states), -1, -1)
        read, _ = self.attention(queries, states, states, need_weights=False)  # (B, A, D)
        return [head(read[:, i]) for i, head in enumerate(self.heads)]


class ClipTraining(nn.Module):
    """CLIP and its two attribute readers."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        self.read_text = AttributeReader()
        self.read_image = AttributeReader()


def attribute_classes(a: Attributes, classes: dict[str, list[str]] = CLASSES) -> list[int]:
    """Class number of every attribute of ``a``, in the order of ``classes``."""
    return [values.index(getattr(a, name)) for name, values in classes.items()]


def reading_loss(logits: list[Tensor], classes: Tensor, known: Tensor) -> Tensor:
    """Mean cross-entropy over the attributes that are ``known``.

    Args:
        logits: of each of A attributes ``(B, classes)``.
        classes: class numbers ``(B, A)``.
        known: whether each counts ``(B, A)``.
    """
    losses = torch.stack(
        [F.cross_entropy(x, classes[:, i], reduction="none") for i, x in enumerate(logits)],
        dim=1,
    )  # (B, A)
    return (losses * known).sum() / known.sum()


def train_clip(
    images: np.ndarray,
    drawn: list[Attributes],
    tokenizer: CLIPTokenizer,
    checkpoint: Path,
    device: torch.device,
    fit: Fit = FIT,
) -> CLIPModel:
    """Train CLIP on drawn portraits and captions made anew for every step."""
    torch.manual_seed(0)
    model = ClipTraining(build_clip(tokenizer)).to(device)
    all_classes = torch.tensor([attribute_classes(a) for a in drawn])

    def loss_at(step: int) -> Tensor:
        rng = random.Random(f"clip/{step}")
        chosen = rng.sample(range(len(drawn)), BATCH)
        said = [compose(drawn[i], rng) for i in chosen]
        known = torch.tensor([[name in names for name in CLASSES] for _, names in said])
        classes = all_classes[chosen]
        # Without hair there is no hair colour to see.
        seen = torch.ones_like(known)
        seen[:, list(CLASSES).index("hair_color")] = classes[:, 0] != 0
        tokens = tokenizer([text for text, _ in said], padding=True, return_tensors="pt")
        classes, known, seen = classes.to(device), known.to(device), seen.to(device)
        text = model.clip.text_model(**tokens.to(device), output_hidden_states=True)
        vision = model.clip.vision_model(to_tensor(images[chosen]).to(device))
        t = F.normalize(model.clip.text_projection(text.pooler_output), dim=-1)
        v = F.normalize(model.clip.visual_projection(vision.pooler_output), dim=-1)
        # Clip skip 1 and 2 are both read, so that both condition well.
        states = model.clip.text_model.final_layer_norm(text.hidden_states[-1 - step % 2])
        read = reading_loss(model.read_text(states), classes, known)
        read += reading_loss(model.read_image(vision.last_hidden_state), classes, seen)
        logits = model.clip.logit_scale.exp().clamp(max=100) * t @ v.T  # (B, B)
        target = torch.arange(BATCH, device=device)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        return contrast + read

    fit_network(model, loss_at, fit, checkpoint)
    return model.clip


def retrieval_accuracy(
    clip: CLIPModel, tokenizer: CLIPTokenizer, images: np.ndarray, drawn: list[Attributes]
) -> float:
    """Share of captions (all attributes named) whose image ranks first among 64."""
    rng = random.Random("retrieval")
    hits, total = 0, 0
    for i in range(0, len(drawn) - 63, 64):
        texts = [compose(a, rng, keep=1.0)[0] for a in drawn[i : i + 64]]
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        with torch.inference_mode():
            pixels = to_tensor(images[i : i + 64]).to(clip.device)
            result = clip(**tokens.to(clip.device), pixel_values=pixels)
        best = result.logits_per_text.argmax(dim=1).cpu()
        hits += int((best == torch.arange(64)).sum())
        total += 64
    return hits / total
