"""Embeddings kept on disk by the content of the image and the encoder: nothing is encoded twice.

Several processes may add to one file: each takes in what the others have added before it writes.
"""

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from lora_lab.data.checked_tensors import load_checked, save_checked
from lora_lab.files import atomic_path
from lora_lab.metrics.encoders import ImageEncoder
from lora_lab.run_folder.locks import wait_for

log = logging.getLogger(__name__)


class EmbeddingStore:
    """Vectors of one encoder in one file.

    Args:
        folder: Where the file lies.
        encoder: Encodes what isn't there yet.
    """

    def __init__(self, folder: Path, encoder: ImageEncoder) -> None:
        self.encoder = encoder
        name = re.sub(r"[^\w-]+", "_", encoder.fingerprint)[:60]
        digest = hashlib.sha256(encoder.fingerprint.encode()).hexdigest()[:12]
        self.path = folder / f"{name}-{digest}.safetensors"
        self.vectors: dict[str, Tensor] = self._load()

    def embed(self, images: Sequence[Image.Image]) -> Tensor:
        """Vectors of length 1, (N, D); writes the file when there are new ones.

        Raises:
            LabError: The file can't be written.
        """
        keys = [content_key(image) for image in images]
        new = {k: i for k, i in zip(keys, images, strict=True) if k not in self.vectors}
        if new:
            vectors = self.encoder.embed_images(list(new.values()))
            self.vectors |= dict(zip(new, vectors, strict=True))
            with wait_for(self.path.with_suffix(".lock"), f"{self.path.name}"):
                self.vectors = self._load() | self.vectors
                with atomic_path(self.path) as temporary:
                    save_checked(self.vectors, temporary)
        return torch.stack([self.vectors[key] for key in keys])

    def _load(self) -> dict[str, Tensor]:
        if not self.path.is_file():
            return {}
        try:
            return load_checked(self.path)
        except (SafetensorError, OSError, ValueError) as error:
            log.warning("%s can't be read (%s): its images are encoded again", self.path, error)
            return {}


def content_key(image: Image.Image) -> str:
    """64 hex digits over size and pixels, so that metadata and file format don't count."""
    rgb = image.convert("RGB")
    digest = hashlib.sha256(f"{rgb.width}x{rgb.height}".encode())
    digest.update(rgb.tobytes())
    return digest.hexdigest()
