"""An image that is drawn again: the same bytes, from files that are recognised by their weights."""

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from lora_files import random_lora
from lora_lab.checkpoint.base_model import load_base
from lora_lab.errors import LabError
from lora_lab.images.png_info import read_recipe
from lora_lab.lora_file import write_lora
from lora_lab.sampling.generate import DrawSettings, ImageRequest, draw_images, draw_settings
from lora_lab.sampling.pipeline import ImageTask, LoRAPipeline
from lora_lab.sampling.replay import replay
from settings import tiny_sampling
from tiny_model import make_tiny_base


@pytest.fixture(scope="module")
def base(tiny_base):
    return load_base(str(tiny_base))


@pytest.fixture
def sampling(tiny_base):
    return tiny_sampling(tiny_base)


@pytest.fixture
def run(tmp_path, base, sampling):
    """Five images in batches of three and two, of a LoRA in the run's lora/."""
    sampling.batch_size = 3
    lora = tmp_path / "run" / "lora" / "mine.safetensors"
    write_lora(lora, random_lora(base, dim=4), {"ss_seed": "1"})
    tasks = [
        ImageTask(
            tmp_path / "run" / "images" / "tiny" / "simple" / f"{seed}.png",
            ImageRequest(f"person {seed}, (smile:1.3)", "bad", seed),
            draw_settings(sampling),
            lora,
            0.8,
            plain_name=True,
        )
        for seed in range(5)
    ]
    assert all(outcome.drawn for outcome in LoRAPipeline(base, sampling).draw(tasks))
    return tmp_path / "run"


def pngs(run):
    return sorted(run.rglob("images/**/*.png"))


def test_every_image_of_a_batch_is_drawn_again_byte_for_byte(tmp_path, run, sampling):
    for png in pngs(run):
        again = replay(png, tmp_path / "out", sampling, None, None)
        assert again.read_bytes() == png.read_bytes() and again != png


def test_a_moved_lora_is_given_by_its_path_whatever_its_name(tmp_path, run, sampling):
    moved = tmp_path / "elsewhere.safetensors"
    shutil.move(run / "lora" / "mine.safetensors", moved)
    png = pngs(run)[0]
    with pytest.raises(LabError, match=r"LoRA mine .* not found: set lora="):
        replay(png, tmp_path / "out", sampling, None, None)
    assert replay(png, tmp_path / "out", sampling, moved, None).read_bytes() == png.read_bytes()


def test_another_lora_of_that_name_is_refused_by_its_hash(tmp_path, run, base, sampling):
    other = random_lora(base, dim=4, seed=7)
    write_lora(run / "lora" / "mine.safetensors", other, {"ss_seed": "1"})
    with pytest.raises(LabError, match=r"mine\.safetensors has the hash"):
        replay(pngs(run)[0], tmp_path / "out", sampling, None, None)


def test_another_checkpoint_of_that_name_is_refused_by_its_hash(tmp_path, run, tiny_base, sampling):
    sampling.checkpoints = [str(make_tiny_base(tmp_path / tiny_base.name, seed=5))]
    with pytest.raises(LabError, match=r"not found: set sampling\.checkpoints=.*has the hashes"):
        replay(pngs(run)[0], tmp_path / "out", sampling, None, None)


def test_an_image_of_others_can_not_be_drawn_again(tmp_path, sampling):
    Image.new("RGB", (8, 8)).save(tmp_path / "other.png")
    with pytest.raises(LabError, match="holds no settings of ours"):
        replay(tmp_path / "other.png", tmp_path, sampling, None, None)


SETTINGS = DrawSettings("Euler a", 4, 3.0, 32, 32, clip_skip=2, batch_size=3)


def arrays(drawn):
    return np.stack([np.asarray(result.image) for result in drawn]).astype(int)


def test_which_images_share_a_batch_makes_no_difference_to_the_bit(base):
    one = ImageRequest("person one", "bad", 1)
    some = [one, ImageRequest("two", "", 2), ImageRequest("three", "x", 3)]
    others = [one, ImageRequest("four", "y", 4), ImageRequest("five", "", 5)]
    first, second = (arrays(draw_images(base, batch, SETTINGS)) for batch in (some, others))
    assert np.array_equal(first[0], second[0]) and not np.array_equal(first[1], second[1])


def test_the_size_of_a_batch_changes_rounding_only(base):
    requests = [ImageRequest(f"person {seed}", "bad", seed) for seed in range(3)]
    together = arrays(draw_images(base, requests, SETTINGS))
    alone = np.concatenate([arrays(draw_images(base, [one], SETTINGS)) for one in requests])
    assert np.abs(together - alone).max() <= 1


def test_a_killed_drawing_goes_on_with_the_same_bytes(run, base, sampling):
    before = {png: png.read_bytes() for png in pngs(run)}
    for png in pngs(run)[1:4]:
        png.unlink()
    (pngs(run)[0].parent / f".{pngs(run)[0].name}.1234.tmp").write_bytes(b"half")
    tasks = [
        ImageTask(
            png,
            ImageRequest(f"person {seed}, (smile:1.3)", "bad", seed),
            draw_settings(sampling),
            run / "lora" / "mine.safetensors",
            0.8,
            plain_name=True,
        )
        for seed, png in enumerate(before)
    ]
    outcomes = LoRAPipeline(base, sampling).draw(tasks)
    assert [outcome.drawn for outcome in outcomes] == [False, True, True, True, False]
    assert {png: png.read_bytes() for png in before} == before


def test_images_are_drawn_with_the_threads_that_the_image_names(tmp_path, run, sampling):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        png = pngs(run)[0]
        assert replay(png, tmp_path / "o", sampling, None, None).read_bytes() == png.read_bytes()
        assert torch.get_num_threads() == read_recipe(png).threads
    finally:
        torch.set_num_threads(threads)
    assert os.path.exists(tmp_path / "o")
