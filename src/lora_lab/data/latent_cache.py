"""Latents of the training images: encoded once, then kept under a key made of their content.

The key holds everything that a latent depends on, so a resized or edited image, another crop,
another number format or another VAE never meets an old latent. What is kept is the mean and the
standard deviation of the VAE's posterior, each times the VAE's scaling factor.

On disk each image is a file of its own, written whole or not at all, under a lock: two processes
that share a folder encode each image once between them, and a killed one leaves nothing broken.

Shapes: C latent channels, H and W image sides in pixels, h and w latent sides.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError
from torch import Tensor

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.data.buckets import Placement
from lora_lab.data.checked_tensors import load_checked, save_checked
from lora_lab.data.images import ColorChange, ImageFile, load_pixels
from lora_lab.errors import LabError
from lora_lab.files import atomic_path, make_folder, write_error

log = logging.getLogger(__name__)

LAYOUT = "3"
"""Part of every key; raise it when the way from file to latent, or what is kept, changes."""


@dataclass(frozen=True)
class Posterior:
    """What the VAE says of an image: a normal distribution for each latent value."""

    mean: Tensor
    """float32 on the CPU, (C, h, w)."""
    std: Tensor
    """float32 on the CPU, (C, h, w)."""


class LatentCache:
    """Latents in memory, and in a folder as well if there is one.

    Args:
        folder: Where latents stay for later runs; None keeps them in memory alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.memory: dict[str, Posterior] = {}

    def posterior(
        self,
        base: BaseModel,
        image: ImageFile,
        placement: Placement,
        flip: bool,
        color: ColorChange | None = None,
        precision: str = "float32",
        resize_filter: str = "area",
    ) -> Posterior:
        """The latents of an image, from memory, from the folder, or from the VAE.

        Args:
            base: Whose VAE encodes, where it stands.
            image: The image file.
            placement: Its scaling and crop.
            flip: Whether the image is mirrored.
            color: Its change of colour, if any.
            precision: Number format of the encoding: float32, bfloat16 or float16.
            resize_filter: How an image is made smaller: area or lanczos.

        Raises:
            LabError: The image can't be read, its latent isn't finite, or the folder isn't
                writable.
        """
        key = latent_key(
            base.vae_fingerprint, image, placement, flip, color, precision, resize_filter
        )
        if key not in self.memory:
            self.memory[key] = self._found_or_made(
                key,
                base,
                image,
                lambda: load_pixels(image.path, placement, flip, color, resize_filter),
                precision,
            )
        return self.memory[key]

    def _found_or_made(
        self,
        key: str,
        base: BaseModel,
        image: ImageFile,
        pixels: Callable[[], Tensor],
        precision: str,
    ) -> Posterior:
        if self.folder is None:
            return encode(base, pixels(), image.path, precision)
        path = self.folder / key[:2] / f"{key}.safetensors"
        found = read_posterior(path, image) if path.is_file() else None
        if found is not None:
            return found
        with self._lock(key):
            # Another process may have made it meanwhile.
            found = read_posterior(path, image) if path.is_file() else None
            if found is None:
                for left in path.parent.glob(f".{path.name}.*.tmp"):
                    left.unlink(missing_ok=True)  # by a process that was killed: we hold its lock
                found = encode(base, pixels(), image.path, precision)
                with atomic_path(path) as temporary:
                    save_checked({"mean": found.mean, "std": found.std}, temporary)
            return found

    def _lock(self, key: str) -> FileLock:
        """One of 16 locks, so that processes wait for each other only now and then."""
        assert self.folder is not None
        path = make_folder(self.folder / "locks") / f"{key[0]}.lock"
        try:
            path.touch()
        except OSError as error:
            raise write_error(path, error) from error
        return FileLock(path)


def read_posterior(path: Path, image: ImageFile) -> Posterior | None:
    """What a file of the cache holds; None if it is damaged, which the log tells."""
    try:
        tensors = load_checked(path)
        found = Posterior(tensors["mean"], tensors["std"])
        if found.mean.shape != found.std.shape or not _finite(found):
            raise ValueError("its values are invalid")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        log.warning("%s: damaged (%s), %s is encoded again", path, error, image.path.name)
        return None
    return found


@torch.no_grad()
def encode(base: BaseModel, pixels: Tensor, path: Path, precision: str = "float32") -> Posterior:
    """Encode one image alone, so that its latent doesn't depend on what else is in a batch.

    Args:
        base: Whose VAE encodes.
        pixels: In [-1, 1], (1, 3, H, W).
        path: What the error names.
        precision: Number format of the encoding: float32, bfloat16 or float16.

    Raises:
        LabError: The latent holds NaN or infinity.
    """
    vae = base.vae
    dtype = getattr(torch, precision)
    with torch.autocast(vae.device.type, dtype, enabled=dtype is not torch.float32):
        distribution = vae.encode(pixels.to(vae.device)).latent_dist
    scale = vae.config["scaling_factor"]
    mean, std = (
        (part[0] * scale).float().cpu().contiguous()
        for part in (distribution.mode(), distribution.std)
    )
    posterior = Posterior(mean, std)
    if not _finite(posterior):
        raise LabError(
            f"{path}: its latent holds NaN or infinity; the VAE of {base.name} is damaged or "
            "overflows: choose another model.checkpoint, or data.vae_precision=float32"
        )
    return posterior


def _finite(posterior: Posterior) -> bool:
    return bool(torch.isfinite(posterior.mean).all() and torch.isfinite(posterior.std).all())


def latent_key(
    vae_fingerprint: str,
    image: ImageFile,
    placement: Placement,
    flip: bool,
    color: ColorChange | None = None,
    precision: str = "float32",
    resize_filter: str = "area",
) -> str:
    """64 hex digits over everything that the latent depends on."""
    parts = (
        *(LAYOUT, vae_fingerprint, image.sha256, precision),
        *(placement.scaled, placement.crop, flip, color, resize_filter),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()
