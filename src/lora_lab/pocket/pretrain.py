"""The stages of pocket's pretraining, each resumable on its own.

Everything is kept in a work folder: drawn data, checkpoints, and what a finished stage hands on.
"""

import copy
import importlib.util
import logging
import random
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from lora_lab.errors import LabError
from lora_lab.pocket.attributes import Attributes, draw_attributes, phrases
from lora_lab.pocket.clip import train_clip
from lora_lab.pocket.dataset import draw_dataset, load_dataset
from lora_lab.pocket.draw import STYLES
from lora_lab.pocket.tokenizer import build_tokenizer
from lora_lab.pocket.unet import STYLE_FIT, Pretraining, encode_images, train_unet
from lora_lab.pocket.vae import train_decoder, train_vae

log = logging.getLogger(__name__)

COUNTS = {"plain": 20_000, "graphic": 5_000, "photo": 5_000}
"""Portraits drawn in each style."""
HELD_OUT = 500
"""Portraits at the end of each style that nothing is trained on."""
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


@dataclass(frozen=True)
class Stages:
    """Pocket's parts; asking for one trains what it needs first."""

    work: Path
    """Where data, checkpoints and finished parts are kept."""

    def draw(self) -> None:
        """Draw what is missing of the data."""
        for style in STYLES:
            draw_dataset(self.work / "data", style, COUNTS[style], SEED)

    def training_data(self, *styles: str) -> tuple[np.ndarray, list[Attributes]]:
        """Images and attributes of ``styles`` without the held-out ones."""
        parts = [load_dataset(self.work / "data", style) for style in styles]
        images = np.concatenate([images[:-HELD_OUT] for images, _ in parts])
        return images, [a for _, drawn in parts for a in drawn[:-HELD_OUT]]

    def held_out(self, style: str) -> tuple[np.ndarray, list[Attributes]]:
        """The last portraits of one style."""
        images, drawn = load_dataset(self.work / "data", style)
        return images[-HELD_OUT:], drawn[-HELD_OUT:]

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        """CLIP's tokenizer, reduced."""
        folder = self.work / "tokenizer"
        if not folder.exists():
            build_tokenizer(clip_merges_file(), caption_words()).save_pretrained(folder)
        return CLIPTokenizer.from_pretrained(folder)

    @cached_property
    def clip(self) -> CLIPModel:
        """The small CLIP."""
        folder = self.work / "clip"
        if not folder.exists():
            images, drawn = self.training_data(*STYLES)
            train_clip(images, drawn, self.tokenizer, self.work / "clip.pt").save_pretrained(folder)
        return CLIPModel.from_pretrained(folder).eval()

    @cached_property
    def text_encoder(self) -> CLIPTextModel:
        """CLIP's text tower as Stable Diffusion's class."""
        encoder = CLIPTextModel(self.clip.config.text_config)
        encoder.load_state_dict(self.clip.text_model.state_dict())
        return encoder.eval().requires_grad_(False)

    @cached_property
    def encoder(self) -> AutoencoderKL:
        """The autoencoder whose encoder is final: all latents come from it."""
        folder = self.work / "vae"
        if not folder.exists():
            images, _ = self.training_data(*STYLES)
            train_vae(images, self.work / "vae.pt").save_pretrained(folder)
        return AutoencoderKL.from_pretrained(folder).eval()

    @cached_property
    def vae(self) -> AutoencoderKL:
        """The final autoencoder: ``encoder`` with its decoder trained further."""
        folder = self.work / "vae-final"
        if not folder.exists():
            images, _ = self.training_data(*STYLES)
            vae = copy.deepcopy(self.encoder)
            train_decoder(vae, images, self.work / "decoder.pt").save_pretrained(folder)
        return AutoencoderKL.from_pretrained(folder).eval()

    def unet(self, style: str) -> UNet2DConditionModel:
        """The denoiser of ``plain``, or its fine-tune towards another style."""
        folder = self.work / f"unet-{style}"
        if not folder.exists():
            images, drawn = self.training_data(style)
            latents = encode_images(self.encoder, images)
            data = Pretraining(latents, drawn, self.tokenizer, self.text_encoder)
            checkpoint = self.work / f"unet-{style}.pt"
            if style == "plain":
                unet = train_unet(data, checkpoint, style)
            else:
                unet = train_unet(data, checkpoint, style, STYLE_FIT, self.unet("plain"))
            unet.save_pretrained(folder)
        return UNet2DConditionModel.from_pretrained(folder).eval()
