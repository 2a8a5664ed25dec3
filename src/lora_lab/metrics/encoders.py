"""Encoders of images and texts: CLIP and DINOv2, from an embedded, a local or a hub model.

Shapes: N images or texts, D size of an embedding, H and W sides of the encoder's input.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import AutoModel, CLIPModel, CLIPTokenizer
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils import logging as transformers_logging

from lora_lab.checkpoint.embedded import PREFIX, locate
from lora_lab.errors import LabError
from lora_lab.files import sha256_file
from lora_lab.metrics.face import load_face

log = logging.getLogger(__name__)

BATCH = 32
"""Pictures in one forward pass."""


class ImageEncoder(Protocol):
    """Turns pictures into vectors."""

    fingerprint: str
    """Equal fingerprints give equal vectors."""

    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Vectors of length 1, (N, D); a row of NaN where the encoder finds nothing, as no face."""
        ...


class CLIPEncoder:
    """CLIP (arXiv 2103.00020): images and texts in one space.

    Args:
        model: The model with both towers.
        tokenizer: Of its text tower.
        processor: Brings a picture to its size and range, with Pillow.
        fingerprint: Of the weights.
    """

    def __init__(
        self,
        model: CLIPModel,
        tokenizer: CLIPTokenizer,
        processor: CLIPImageProcessorPil,
        fingerprint: str,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.processor = processor
        self.fingerprint = fingerprint

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Vectors of length 1, (N, D)."""
        return _embed(
            self.processor,
            images,
            lambda pixels: self.model.visual_projection(
                self.model.vision_model(pixel_values=pixels).pooler_output
            ),
        )

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Vectors of length 1, (N, D); a text that is too long is cut at the end."""
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        pooled = self.model.text_model(**tokens).pooler_output
        return F.normalize(self.model.text_projection(pooled).float(), dim=-1)


class DINOEncoder:
    """DINOv2 (arXiv 2304.07193): the class token of the last layer.

    Args:
        model: The model.
        processor: Brings a picture to its size and range, with Pillow.
        fingerprint: Of the weights.
    """

    def __init__(self, model: Any, processor: BitImageProcessorPil, fingerprint: str) -> None:
        self.model = model.eval()
        self.processor = processor
        self.fingerprint = fingerprint

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Vectors of length 1, (N, D)."""
        return _embed(  # the first of (N, 1 + patches, D)
            self.processor,
            images,
            lambda pixels: self.model(pixel_values=pixels).last_hidden_state[:, 0],
        )


def load_clip(location: str) -> CLIPEncoder:
    """Load a CLIP.

    Args:
        location: ``embedded:pocket-clip``, a folder in transformers' layout, or a name on the hub.

    Raises:
        LabError: It can't be had; says what is missing.
    """
    source = _source("metrics.clip", location)
    try:
        with _no_bar():
            model = CLIPModel.from_pretrained(source, use_safetensors=True)
        tokenizer = CLIPTokenizer.from_pretrained(source)
        processor = CLIPImageProcessorPil.from_pretrained(source)
    except (OSError, ValueError, ImportError) as error:
        raise _missing("metrics.clip", location, error) from error
    if len(tokenizer) != model.config.text_config.vocab_size:
        raise LabError(
            f"metrics.clip={location}: its tokenizer knows {len(tokenizer)} tokens, its model "
            f"{model.config.text_config.vocab_size}; download its tokenizer files again"
        )
    return CLIPEncoder(model, tokenizer, processor, _fingerprint(source, model))


def load_dino(location: str) -> DINOEncoder:
    """Load a DINOv2.

    Args:
        location: A folder in transformers' layout, or a name on the hub.

    Raises:
        LabError: It can't be had; says what is missing.
    """
    source = _source("metrics.dino", location)
    try:
        with _no_bar():
            model = AutoModel.from_pretrained(source, use_safetensors=True)
        processor = BitImageProcessorPil.from_pretrained(source)
    except (OSError, ValueError, ImportError) as error:
        raise _missing("metrics.dino", location, error) from error
    return DINOEncoder(model, processor, _fingerprint(source, model))


OPTIONAL: dict[str, Callable[[str], ImageEncoder]] = {"dino": load_dino, "face": load_face}
"""Key in conf/metrics/ -> loads the encoder that it names; null: without it."""


@contextmanager
def _no_bar() -> Iterator[None]:
    """Load without transformers' progress bar, which would break into our own lines."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _embed(
    processor: Any, images: Sequence[Image.Image], encode: Callable[[Tensor], Tensor]
) -> Tensor:
    """Vectors of length 1, (N, D), of what an encoder makes of pixels (N, 3, H, W), in batches."""
    parts = []
    for start in range(0, len(images), BATCH):
        group = [image.convert("RGB") for image in images[start : start + BATCH]]
        pixels = processor(group, return_tensors="pt")["pixel_values"]
        parts.append(F.normalize(encode(pixels).float(), dim=-1))
    return torch.cat(parts)


def _source(key: str, location: str) -> str:
    """What transformers loads: a folder, or the name on the hub as it is."""
    if location.startswith(PREFIX):
        try:
            return str(locate(location))
        except LabError as error:
            raise LabError(f"{key}: {error}") from error
    folder = Path(location).expanduser()
    if folder.is_dir():
        return str(folder)
    log.info("%s: %s, from the hub or its cache", key, location)
    return location


def _missing(key: str, location: str, error: Exception) -> LabError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return LabError(
        f"{key}={location} is neither a folder with a whole model in it nor to be had from the "
        f"hub ({reason}); download it and set {key}=<folder>, or set metrics.enabled=false"
    )


def _fingerprint(source: str, model: Any) -> str:
    """Digest of the weights' files in a folder, or the hub's commit."""
    files = sorted(Path(source).glob("*.safetensors")) if Path(source).is_dir() else []
    if files:
        return "-".join(sha256_file(path)[:16] for path in files)
    return f"{source}@{model.config._commit_hash}"
