"""The latent cache: keyed by content, whole after a kill, and never full of NaN."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lora_lab.base_model import BaseModel, load_base
from lora_lab.data.buckets import Placement
from lora_lab.data.images import open_image
from lora_lab.data.latent_cache import LatentCache, latent_key
from lora_lab.errors import LabError

WHOLE = Placement((32, 32), (0, 0, 32, 32))


@pytest.fixture
def base(tiny_base: Path) -> BaseModel:
    return load_base(str(tiny_base))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_a_latent_that_is_not_finite_names_image_and_checkpoint(
    base: BaseModel, picture: Path
) -> None:
    with torch.no_grad():
        next(base.vae.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(LabError, match=r"a\.png: its latent holds NaN or infinity; the VAE of"):
        LatentCache().posterior(base, open_image(picture), WHOLE, flip=False)


def test_the_key_changes_with_everything_that_the_latent_depends_on(picture: Path) -> None:
    image = open_image(picture)
    keys = {
        latent_key("vae", image, WHOLE, False),
        latent_key("other vae", image, WHOLE, False),
        latent_key("vae", image, WHOLE, True),
        latent_key("vae", image, Placement((48, 48), (0, 0, 32, 32)), False),
        latent_key("vae", image, Placement((48, 48), (8, 8, 40, 40)), False),
    }
    with Image.open(picture) as opened:
        pixels = np.asarray(opened).copy()
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(picture)
    keys.add(latent_key("vae", open_image(picture), WHOLE, False))
    assert len(keys) == 6


def test_latents_on_disk_are_the_same_bytes_and_damaged_ones_are_made_again(
    base: BaseModel, picture: Path, tmp_path: Path
) -> None:
    image, folder = open_image(picture), tmp_path / "cache"
    first = LatentCache(folder).posterior(base, image, WHOLE, flip=False).mean
    assert torch.equal(LatentCache(folder).posterior(base, image, WHOLE, flip=False).mean, first)
    [stored] = folder.rglob("*.safetensors")
    stored.write_bytes(stored.read_bytes()[:40])
    assert torch.equal(LatentCache(folder).posterior(base, image, WHOLE, flip=False).mean, first)
    assert {path.suffix for path in folder.rglob("*.*")} == {".safetensors", ".lock"}
