"""Images while training: they change nothing, and go to disk and TensorBoard."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lora_lab.config import PromptsConfig
from lora_lab.images.png_info import read_recipe
from train import train
from train_setup import OPTIMIZER, SAMPLING, train_config

PROMPTS = PromptsConfig("a {subject}", "a {subject}, (smile:1.2)", {}, ["the {subject}, red"])


def trained(folder, tiny_base, tiny_person, samples):
    """A run of two epochs that saves after steps 3 and 6."""
    quick = replace(OPTIMIZER, d0=1e-2)  # so that six steps can be seen
    config = train_config(tiny_base, tiny_person, optimizer=quick)
    sampling = replace(SAMPLING, prompts=PROMPTS, random_seeds=[7], steps=2, guidance=2.0)
    callbacks = replace(config.callbacks, samples=samples)
    logger = replace(config.logger, tensorboard=True)
    train(replace(config, sampling=sampling, callbacks=callbacks, logger=logger), folder)
    return load_file(folder / "lora" / "lora.safetensors")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_base, tiny_person):
    folders = {samples: tmp_path_factory.mktemp("run") for samples in (False, True)}
    loras = {
        samples: trained(folder, tiny_base, tiny_person, samples=samples)
        for samples, folder in folders.items()
    }
    return folders, loras


def test_a_lora_has_the_same_bytes_with_and_without_samples(runs):
    loras = runs[1]
    assert loras[True].keys() == loras[False].keys()
    assert all(torch.equal(loras[True][key], loras[False][key]) for key in loras[True])


def test_each_save_leaves_three_images_that_tell_their_recipe(runs):
    folder = runs[0][True] / "images" / "training"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png")) == [
        f"{name}/{step:08d}.png" for name in ("complex", "random", "simple") for step in (3, 6)
    ]
    recipe = read_recipe(folder / "random" / "00000006.png")
    assert recipe.seed == 7 and recipe.prompt.startswith("the ") and recipe.lora_digest
    first, second = (
        np.asarray(Image.open(folder / "simple" / f"{step:08d}.png")) for step in (3, 6)
    )
    assert (first != second).any(), "the LoRA has changed between the saves"
    assert not (runs[0][False] / "images").exists()


def test_tensorboard_has_them_under_stable_keys(runs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(runs[0][True] / "tensorboard"), {"images": 0})
    events.Reload()
    assert sorted(events.Tags()["images"]) == [
        "samples/complex",
        "samples/random",
        "samples/simple",
    ]
    assert [image.step for image in events.Images("samples/simple")] == [3, 6]
