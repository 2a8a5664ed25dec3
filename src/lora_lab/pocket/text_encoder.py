"""Teach the text tower of pocket's CLIP which noun an adjective belongs to.

The contrastive loss seldom asks whether it is the hair or the hoodie that is red. Captions alone
can, without images and so in great numbers. From the states of all tokens, as a UNet reads them,
every attribute that a caption names must be told. That alone leaves garment and hair exchanged in
half of the captions where both could have either colour, so the last token of each phrase must
tell the phrase's colour and garment as well. CLIP itself stays as it is.

Shapes: B batch, L tokens, D width.
"""

import random
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BatchEncoding, CLIPModel, CLIPTextModel, CLIPTokenizer

from lora_lab.pocket.attributes import (
    BACKGROUNDS,
    CLASSES,
    COLORS,
    GARMENTS,
    HAIR_COLORS,
    Attributes,
    compose,
    draw_attributes,
    with_changes,
)
from lora_lab.pocket.clip import WIDTH, AttributeReader, attribute_classes, reading_loss
from lora_lab.pocket.loop import Fit, fit_network

FIT = Fit(steps=700, lr=1e-3, warmup=50, weight_decay=0.02, ema=0.98, checkpoint_every=100)
BATCH = 128
ANY_COLOR = list(COLORS | HAIR_COLORS | BACKGROUNDS)
"""Of hair, garment and background alike: were a colour the hair's alone, it would tell the hair's
without its noun."""
COLORED = dict.fromkeys(("hair_color", "garment_color", "background"), ANY_COLOR)
TOLD = CLASSES | COLORED
"""What is told from a caption, and its values in the order of their class numbers."""


def text_tower(clip: CLIPModel) -> CLIPTextModel:
    """A copy of the text tower of ``clip``, as Stable Diffusion's class."""
    tower = CLIPTextModel(clip.config.text_config)
    tower.load_state_dict(clip.text_model.state_dict())
    return tower.to(clip.device)


class CaptionReading(nn.Module):
    """A text encoder, and what reads attributes, and what a phrase names, from its states."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.text_encoder = text_tower(clip)
        self.reader = AttributeReader(TOLD)
        self.color = nn.Linear(WIDTH, len(ANY_COLOR))
        self.garment = nn.Linear(WIDTH, len(GARMENTS))

    def states(self, tokens: BatchEncoding, skip: int) -> Tensor:
        """The hidden states ``(B, L, D)`` of layer ``skip`` before the last, normalised."""
        encoded = self.text_encoder(**tokens, output_hidden_states=True)
        return self.text_encoder.final_layer_norm(encoded.hidden_states[-1 - skip])


def _phrases_naming(
    values: list[str], texts: list[str], tokens: BatchEncoding
) -> tuple[list[int], ...]:
    """Caption, last token and value's number of every phrase that names one of ``values``."""
    found = []
    for i, text in enumerate(texts):
        end = -2
        for phrase in text.split(", "):
            end += 2 + len(phrase)
            named = [n for n, value in enumerate(values) if f" {value} " in f" {phrase} "]
            if named:
                found.append((i, tokens.char_to_token(i, end - 1), named[0]))
    return tuple(map(list, zip(*found, strict=True)))


def _draw_said(rng: random.Random) -> Attributes:
    """What a caption says; hair, garment and background may have any colour."""
    colors = {name: rng.choice(values) for name, values in COLORED.items()}
    return with_changes(draw_attributes(rng), **colors)


def train_text_encoder(
    clip: CLIPModel, tokenizer: CLIPTokenizer, checkpoint: Path, fit: Fit = FIT
) -> CaptionReading:
    """Go on with a copy of CLIP's text tower, on captions of portraits that nobody draws."""
    torch.manual_seed(0)
    model = CaptionReading(clip).to(clip.device)

    def loss_at(step: int) -> Tensor:
        rng = random.Random(f"captions/{step}")
        drawn = [_draw_said(rng) for _ in range(BATCH)]
        said = [compose(a, rng) for a in drawn]
        known = torch.tensor([[name in names for name in TOLD] for _, names in said])
        classes = torch.tensor([attribute_classes(a, TOLD) for a in drawn])
        texts = [text for text, _ in said]
        tokens = tokenizer(texts, padding=True, return_tensors="pt").to(clip.device)
        # Clip skip 1 and 2 are both read, so that both condition well.
        states = model.states(tokens, skip=step % 2)
        told = reading_loss(model.reader(states), classes.to(clip.device), known.to(clip.device))
        for head, values in ((model.color, ANY_COLOR), (model.garment, list(GARMENTS))):
            caption, token, value = _phrases_naming(values, texts, tokens)
            logits = head(states[caption, token])
            told = told + F.cross_entropy(logits, torch.tensor(value, device=clip.device))
        return told

    fit_network(model, loss_at, fit, checkpoint)
    return model


@torch.inference_mode()
def told_from_captions(
    model: CaptionReading, tokenizer: CLIPTokenizer, drawn: list[Attributes], skip: int = 1
) -> dict[str, float]:
    """Share of captions from whose states each attribute is told.

    Beard, scar and print may go unsaid where there is none; all else is said.
    """
    rng = random.Random("told from captions")
    texts = [compose(a, rng, keep=1.0)[0] for a in drawn]
    device = next(model.parameters()).device
    tokens = tokenizer(texts, padding=True, return_tensors="pt").to(device)
    classes = torch.tensor([attribute_classes(a, TOLD) for a in drawn])
    states = model.states(tokens, skip)
    haired = torch.tensor([a.hair != "bald" for a in drawn])
    shares = {}
    for i, (name, logits) in enumerate(zip(TOLD, model.reader(states), strict=True)):
        hits = logits.argmax(1).cpu() == classes[:, i]
        shares[name] = (hits[haired] if name == "hair_color" else hits).float().mean().item()
    return shares
