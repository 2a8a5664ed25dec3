"""The latent cache: keyed by content, whole after a kill, and never full of NaN."""

import logging
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file, save_file

from lora_lab.checkpoint.base_model import BaseModel, load_base
from lora_lab.data import latent_cache
from lora_lab.data.buckets import Placement
from lora_lab.data.checked_tensors import save_checked
from lora_lab.data.folders import find_examples
from lora_lab.data.images import ColorChange, open_image
from lora_lab.data.latent_cache import LatentCache, Posterior, encode, latent_key
from lora_lab.data.prepare import prepare
from lora_lab.errors import LabError
from train_setup import data_config

WHOLE = Placement((32, 32), (0, 0, 32, 32))


@pytest.fixture
def base(tiny_base: Path) -> BaseModel:
    return load_base(str(tiny_base))


class SpawnedFill(NamedTuple):
    """A process that fills a cache, and the names of the files that it has written."""

    process: BaseProcess
    files: "multiprocessing.Queue[str]"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The VAE is left out where the cache alone is looked at."""
    monkeypatch.setattr(latent_cache, "encode", quick_encode)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return paint(tmp_path / "a.png")


def paint(path: Path, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def stored_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def same(one: Posterior, other: Posterior) -> bool:
    return torch.equal(one.mean, other.mean) and torch.equal(one.std, other.std)


def test_a_latent_that_is_not_finite_names_image_and_checkpoint(
    base: BaseModel, picture: Path
) -> None:
    with torch.no_grad():
        next(base.vae.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(LabError, match=r"a\.png: its latent holds NaN or infinity; the VAE of"):
        LatentCache().posterior(base, open_image(picture), WHOLE, flip=False)


def test_mean_and_deviation_are_those_of_the_vae(base: BaseModel, picture: Path) -> None:
    found = LatentCache().posterior(base, open_image(picture), WHOLE, flip=False)
    pixels = torch.from_numpy(np.asarray(Image.open(picture), dtype=np.float32)) / 127.5 - 1
    with torch.no_grad():
        moments = base.vae.quant_conv(base.vae.encoder(pixels.permute(2, 0, 1)[None]))[0]
    mean, log_variance = moments.chunk(2)
    assert torch.allclose(found.mean, mean * 0.5, atol=1e-6)
    deviation = log_variance.clamp(-30, 20).exp().sqrt() * 0.5
    assert torch.allclose(found.std, deviation, rtol=1e-5)


def test_the_key_changes_with_everything_that_the_latent_depends_on(picture: Path) -> None:
    image = open_image(picture)
    keys = {
        latent_key("vae", image, WHOLE, False),
        latent_key("other vae", image, WHOLE, False),
        latent_key("vae", image, WHOLE, True),
        latent_key("vae", image, Placement((48, 48), (0, 0, 32, 32)), False),
        latent_key("vae", image, Placement((48, 48), (8, 8, 40, 40)), False),
        latent_key("vae", image, WHOLE, False, ColorChange(3, 1.0)),
        latent_key("vae", image, WHOLE, False, None, "bfloat16"),
        latent_key("vae", image, WHOLE, False, None, "float32", "lanczos"),
    }
    with Image.open(picture) as opened:
        pixels = np.asarray(opened).copy()
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(picture)
    keys.add(latent_key("vae", open_image(picture), WHOLE, False))
    assert len(keys) == 9


@pytest.mark.parametrize("change", ["image", "vae", "resolution", "crop", "precision", "mirror"])
def test_no_change_of_what_counts_ever_meets_an_old_latent(
    change: str, base: BaseModel, tmp_path: Path
) -> None:
    """A cache in use is asked again after one change; the answer is what a fresh encoding gives."""
    images = tmp_path / "set" / "train" / "4_zqx"
    images.mkdir(parents=True)
    paint(images / "a.png")
    config = data_config(tmp_path / "set")
    cache = LatentCache(tmp_path / "cache")

    def latents(kept: LatentCache) -> torch.Tensor:
        item = prepare(find_examples(config).train, base, kept, config, augment=True)[0]
        return (item.mirrored or item.views)[0].posterior.mean

    before = latents(cache)
    if change == "image":
        paint(images / "a.png", seed=1)
    elif change == "vae":
        with torch.no_grad():
            base.vae.encoder.conv_in.weight.mul_(1.1)
        base.vae_fingerprint = "another"  # load_base makes it of the weights
    elif change == "mirror":
        config = replace(config, flip=True)
    elif change == "resolution":
        config = replace(config, resolution=64)
    elif change == "crop":
        config = replace(config, random_crop=True, enable_bucket=True, resolution=48)
    else:
        config = replace(config, vae_precision="bfloat16")
    after = latents(LatentCache(tmp_path / "cache"))
    assert torch.equal(after, latents(LatentCache()))
    assert after.shape != before.shape or not torch.equal(after, before)
    assert torch.equal(after, latents(cache))


def test_the_fingerprint_of_a_vae_follows_its_weights(base: BaseModel, tiny_base: Path) -> None:
    from tiny_model import make_tiny_base

    assert load_base(str(tiny_base)).vae_fingerprint == base.vae_fingerprint
    other = make_tiny_base(tiny_base.parent / "another-base", seed=1)
    assert load_base(str(other)).vae_fingerprint != base.vae_fingerprint


@pytest.mark.parametrize("damage", ["cut", "nan", "keys", "flipped"])
def test_damaged_latents_are_made_again_and_told(
    damage: str, base: BaseModel, picture: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image, folder = open_image(picture), tmp_path / "cache"
    first = LatentCache(folder).posterior(base, image, WHOLE, flip=False)
    assert same(LatentCache(folder).posterior(base, image, WHOLE, flip=False), first)
    assert not caplog.records
    [stored] = stored_files(folder)
    if damage == "cut":
        stored.write_bytes(stored.read_bytes()[:40])
    elif damage == "flipped":  # one bit of a value, which stays finite
        content = bytearray(stored.read_bytes())
        content[-4] ^= 1
        stored.write_bytes(content)
    elif damage == "nan":
        save_file({"mean": first.mean * float("nan"), "std": first.std}, stored)
    else:
        save_file({"latents": first.mean}, stored)
    with caplog.at_level(logging.WARNING):
        assert same(LatentCache(folder).posterior(base, image, WHOLE, flip=False), first)
    assert "damaged" in caplog.text and "a.png is encoded again" in caplog.text
    assert torch.equal(load_file(stored)["mean"], first.mean)


def test_a_cache_in_memory_encodes_once(
    base: BaseModel, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []

    def counting(base: BaseModel, pixels: torch.Tensor, path: Path, precision: str) -> Posterior:
        calls.append(path)
        return encode(base, pixels, path, precision)

    monkeypatch.setattr("lora_lab.data.latent_cache.encode", counting)
    cache, image = LatentCache(), open_image(picture)
    for _ in range(3):
        cache.posterior(base, image, WHOLE, flip=False)
    assert len(calls) == 1


def quick_encode(base: BaseModel, pixels: torch.Tensor, path: Path, precision: str) -> Posterior:
    """In place of the VAE: enough of the pixels to tell images apart."""
    mean = pixels[0, :, ::8, ::8].clone()
    return Posterior(mean, mean.exp())


def fill(base: BaseModel, person: Path, folder: Path, seconds: float) -> SpawnedFill:
    """A process of its own that fills a cache and takes its time over every file."""
    context = multiprocessing.get_context("fork")  # a fresh interpreter would import for seconds
    files = context.Queue()

    def slow_save(tensors: dict[str, torch.Tensor], path: Path) -> None:
        save_checked(tensors, path)
        files.put(path.name)
        time.sleep(seconds)

    def work() -> None:
        latent_cache.save_checked = slow_save
        config = data_config(person)
        prepare(find_examples(config).train, base, LatentCache(folder), config, augment=True)

    process = context.Process(target=work)
    process.start()
    return SpawnedFill(process, files)


@pytest.mark.usefixtures("quick")
def test_a_kill_in_the_middle_of_a_file_leaves_nothing_broken(
    base: BaseModel, tiny_person: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    process, files = fill(base, tiny_person, folder, seconds=1e6)
    files.get()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert stored_files(folder) == [] and list(folder.rglob(".*.tmp"))
    config = data_config(tiny_person)
    examples = find_examples(config).train
    for lock in (folder / "locks").iterdir():
        with FileLock(lock, timeout=0):  # what a killed process held is free
            pass
    items = prepare(examples, base, LatentCache(folder), config, augment=True)
    assert len(stored_files(folder)) == len(examples) and not list(folder.rglob(".*.tmp"))
    fresh = prepare(examples, base, LatentCache(), config, augment=True)
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(items, fresh, strict=True))


@pytest.mark.usefixtures("quick")
def test_two_processes_encode_each_image_once_between_them(
    base: BaseModel, tiny_person: Path, tmp_path: Path
) -> None:
    filling = [fill(base, tiny_person, tmp_path / "cache", 0.05) for _ in range(2)]
    names: list[str] = []
    for process, _ in filling:
        process.join()
        assert process.exitcode == 0
    for _, files in filling:
        while not files.empty():
            names.append(files.get())
    assert len(names) == 6 == len(stored_files(tmp_path / "cache"))
