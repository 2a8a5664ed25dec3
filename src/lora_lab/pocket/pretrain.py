"""The stages of pocket's pretraining, each resumable on its own.

Everything is kept in a work folder: drawn data, checkpoints, and what a finished stage hands on.
"""

import importlib.util
import logging
import os
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from lora_lab.errors import LabError
from lora_lab.files import atomic_path
from lora_lab.pocket.attributes import Attributes, draw_attributes, phrases
from lora_lab.pocket.clip import train_clip
from lora_lab.pocket.dataset import Drawing, draw_dataset, load_dataset
from lora_lab.pocket.draw import STYLES
from lora_lab.pocket.loop import Fit
from lora_lab.pocket.reader import Reader, draw_mixed, train_reader
from lora_lab.pocket.text_encoder import CaptionReading, text_tower, train_text_encoder
from lora_lab.pocket.tokenizer import build_tokenizer
from lora_lab.pocket.unet import FIT, GO_ON_FIT, STYLE_FIT, Pretraining, train_unet
from lora_lab.pocket.vae import encode_images, train_vae

log = logging.getLogger(__name__)

DRAWINGS = {
    "plain": Drawing("plain", 20_000, "plain"),
    "graphic": Drawing("graphic", 5_000, "graphic"),
    "photo": Drawing("photo", 5_000, "photo"),
    "mixed": Drawing("mixed", 16_000, "plain", draw_mixed),
}
"""The three styles, and what the classifier alone learns from: portraits with what is withheld."""
HELD_OUT = 500
"""Portraits at the end of each set that nothing is trained on."""
SEED = 0


def clip_merges_file() -> Path:
    """CLIP's merges as open_clip ships them.

    Raises:
        LabError: the package is not installed.
    """
    spec = importlib.util.find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise LabError("open_clip_torch is missing; pip install --no-deps open_clip_torch")
    return Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"


def caption_words() -> set[str]:
    """Every word that a pretraining caption can hold."""
    rng = random.Random("words")
    texts = [" ".join(phrases(draw_attributes(rng), rng).values()) for _ in range(5000)]
    return set(re.findall("[a-z]+", " ".join(texts))) | set(
        ["a", "of", "person", "portrait", "close", "up"]
    )


def deterministic() -> None:
    """Let PyTorch use such kernels only as give the same bytes again on the same device."""
    # cuBLAS asks for this before its first use.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


@dataclass(frozen=True)
class Stages:
    """Pocket's parts; asking for one trains what it needs first."""

    work: Path
    """Where data, checkpoints and finished parts are kept."""
    device: torch.device
    """Where networks are trained and stay. Weights depend on it by rounding."""

    processes: int = 2
    """That draw at a time."""

    def draw(self) -> None:
        """Draw what is missing of the data."""
        for drawing in DRAWINGS.values():
            draw_dataset(self.work / "data", drawing, SEED, self.processes)

    def training_data(self, *names: str) -> tuple[np.ndarray, list[Attributes]]:
        """Images and attributes of some sets without the held-out ones."""
        parts = [load_dataset(self.work / "data", name) for name in names]
        images = np.concatenate([images[:-HELD_OUT] for images, _ in parts])
        return images, [a for _, drawn in parts for a in drawn[:-HELD_OUT]]

    def held_out(self, name: str) -> tuple[np.ndarray, list[Attributes]]:
        """The last portraits of one set."""
        images, drawn = load_dataset(self.work / "data", name)
        return images[-HELD_OUT:], drawn[-HELD_OUT:]

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        """CLIP's tokenizer, reduced."""
        folder = self.work / "tokenizer"
        if not folder.exists():
            hand_on(build_tokenizer(clip_merges_file(), caption_words()), folder)
        return CLIPTokenizer.from_pretrained(folder)

    @cached_property
    def clip(self) -> CLIPModel:
        """The small CLIP."""
        folder = self.work / "clip"
        if not folder.exists():
            images, drawn = self.training_data(*STYLES)
            checkpoint = self.work / "clip.pt"
            hand_on(train_clip(images, drawn, self.tokenizer, checkpoint, self.device), folder)
        return CLIPModel.from_pretrained(folder).eval().to(self.device)

    @cached_property
    def caption_reading(self) -> CaptionReading:
        """The text encoder, and what reads every attribute from its states."""
        return train_text_encoder(self.clip, self.tokenizer, self.work / "text-encoder.pt")

    @property
    def text_encoder(self) -> CLIPTextModel:
        """The text encoder of every checkpoint."""
        return self.caption_reading.text_encoder.requires_grad_(False)

    @cached_property
    def vae(self) -> AutoencoderKL:
        """The autoencoder."""
        folder = self.work / "vae"
        if not folder.exists():
            images, _ = self.training_data(*STYLES)
            hand_on(train_vae(images, self.work / "vae.pt", self.device), folder)
        return AutoencoderKL.from_pretrained(folder).eval().to(self.device)

    def unet(self, style: str) -> UNet2DConditionModel:
        """The denoiser of ``plain``, or its fine-tune towards another style."""
        if style == "plain":
            return self._denoiser("bound", style, self.text_encoder, GO_ON_FIT, self._first_unet)
        plain = partial(self.unet, "plain")
        return self._denoiser(style, style, self.text_encoder, STYLE_FIT, plain)

    def _first_unet(self) -> UNet2DConditionModel:
        """A denoiser from nothing, which reads the states of CLIP's own text tower."""
        tower = text_tower(self.clip).requires_grad_(False)
        return self._denoiser("plain", "plain", tower, FIT)

    def _denoiser(
        self,
        name: str,
        style: str,
        text_encoder: CLIPTextModel,
        fit: Fit,
        start: Callable[[], UNet2DConditionModel] | None = None,
    ) -> UNet2DConditionModel:
        """A denoiser as it was handed on, or trained first; only then is ``start`` asked for."""
        folder = self.work / f"unet-{name}"
        if not folder.exists():
            images, drawn = self.training_data(style)
            data = Pretraining(self._latents(style, images), drawn, self.tokenizer, text_encoder)
            began = start() if start else None
            hand_on(train_unet(data, folder.with_suffix(".pt"), name, fit, began), folder)
        return UNet2DConditionModel.from_pretrained(folder).eval().to(self.device)

    @cached_property
    def reader(self) -> Reader:
        """The classifier that reads what an image shows."""
        images, drawn = self.training_data(*DRAWINGS)
        return train_reader(images, drawn, self.work / "reader.pt", self.device)

    def _latents(self, style: str, images: np.ndarray) -> Tensor:
        """The latents of ``images``, encoded once and kept."""
        path = self.work / f"latents-{style}.safetensors"
        if not path.exists():
            latents = encode_images(self.vae, images)
            with atomic_path(path) as temporary:
                save_file({"latents": latents}, temporary)
        return load_file(path)["latents"]


class PretrainedPart(Protocol):
    """A finished part of pocket, of diffusers or transformers."""

    def save_pretrained(self, folder: Path, /) -> object:
        """Write it into a folder."""


def hand_on(part: PretrainedPart, folder: Path) -> None:
    """Write a finished part, whole or not at all."""
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    part.save_pretrained(draft)
    draft.rename(folder)
