"""Latents of the training images: encoded once, then kept under a key made of their content.

The key holds everything that the latent depends on, so a resized or edited image, another crop or
another VAE never meets an old latent.

Shapes: C latent channels, H and W image sides in pixels, h and w latent sides.
"""

import hashlib
import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_lab.base_model import BaseModel
from lora_lab.data.buckets import Placement
from lora_lab.data.images import ImageFile, load_pixels
from lora_lab.errors import LabError
from lora_lab.files import atomic_path

log = logging.getLogger(__name__)

LAYOUT = "1"
"""Part of every key; raise it when the way from file to latent changes."""


class LatentCache:
    """Latents in memory, and in a folder as well if there is one.

    Args:
        folder: Where latents stay for later runs; None keeps them in memory alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.memory: dict[str, Tensor] = {}

    def latent(self, base: BaseModel, image: ImageFile, placement: Placement, flip: bool) -> Tensor:
        """The latent of an image, from memory, from the folder, or from the VAE.

        Args:
            base: Whose VAE encodes, where it stands, in float32.
            image: The image file.
            placement: Its scaling and crop.
            flip: Whether the image is mirrored.

        Returns:
            The mean of the VAE's posterior times its scaling factor, float32 on the CPU, (C, h, w).

        Raises:
            LabError: The image can't be read, its latent isn't finite, or the folder isn't
                writable.
        """
        key = latent_key(base.vae_fingerprint, image, placement, flip)
        if key not in self.memory:
            stored = self._from_folder(key, image)
            if stored is None:
                stored = self._encoded(key, base, image, placement, flip)
            self.memory[key] = stored
        return self.memory[key]

    def _file(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / key[:2] / f"{key}.safetensors"

    def _from_folder(self, key: str, image: ImageFile) -> Tensor | None:
        path = self._file(key)
        if path is None or not path.is_file():
            return None
        try:
            return load_file(path)["latents"]
        except (SafetensorError, OSError, KeyError) as error:
            log.warning("%s: damaged (%s), %s is encoded again", path, error, image.path.name)
            return None

    def _encoded(
        self, key: str, base: BaseModel, image: ImageFile, placement: Placement, flip: bool
    ) -> Tensor:
        latent = encode(base, load_pixels(image.path, placement, flip), image.path)
        path = self._file(key)
        if path is not None:
            with atomic_path(path) as temporary:
                save_file({"latents": latent}, temporary)
        return latent


@torch.no_grad()
def encode(base: BaseModel, pixels: Tensor, path: Path) -> Tensor:
    """Encode one image alone, so that its latent doesn't depend on what else is in a batch.

    Args:
        base: Whose VAE encodes.
        pixels: In [-1, 1], (1, 3, H, W).
        path: What the error names.

    Returns:
        (C, h, w), float32, on the CPU.

    Raises:
        LabError: The latent holds NaN or infinity.
    """
    vae = base.vae
    mean = vae.encode(pixels.to(vae.device)).latent_dist.mode()[0]
    latent = (mean * vae.config["scaling_factor"]).float().cpu().contiguous()
    if not torch.isfinite(latent).all():
        raise LabError(
            f"{path}: its latent holds NaN or infinity; the VAE of {base.name} is damaged or "
            "overflows: choose another model.checkpoint"
        )
    return latent


def latent_key(vae_fingerprint: str, image: ImageFile, placement: Placement, flip: bool) -> str:
    """64 hex digits over everything that the latent depends on."""
    parts = (
        *(LAYOUT, vae_fingerprint, image.sha256, "float32"),
        *(placement.scaled, placement.crop, flip),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def fingerprint_latents(latents: dict[str, Tensor]) -> str:
    """sha256 over the names, shapes and bytes of all latents, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(latents):
        latent = latents[name].contiguous()
        digest.update(f"{name} {tuple(latent.shape)}\n".encode())
        digest.update(latent.numpy().tobytes())
    return digest.hexdigest()
