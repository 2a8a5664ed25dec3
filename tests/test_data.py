import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lora_lab.data.folders import find_examples
from lora_lab.errors import ConfigError, LabError
from train_setup import data_config


@pytest.fixture
def person(tmp_path, tiny_person) -> Path:
    """A copy of the tiny person that a test may spoil."""
    return Path(shutil.copytree(tiny_person, tmp_path / "person"))


@pytest.fixture
def images(person) -> Path:
    return person / "train" / "2_zqx person"


def test_finds_images_repeats_and_captions(person):
    examples = find_examples(data_config(person))
    assert len(examples.train) == 6 and len(examples.held_out) == 3
    assert {example.repeats for example in examples.train} == {2}
    assert examples.train[0].key == "2_zqx person/00.png"
    assert examples.train[0].caption.text.startswith("zqx person, ")


def test_repeats_in_the_config_win(person):
    examples = find_examples(data_config(person, repeats=5))
    assert {example.repeats for example in examples.train} == {5}


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(LabError, match="nowhere does not exist"):
        find_examples(data_config(tmp_path / "nowhere"))


def test_missing_train_folder_is_named(tmp_path):
    with pytest.raises(LabError, match=r"train is missing; data\.dir must hold"):
        find_examples(data_config(tmp_path))


def test_folder_without_images_is_named(person, images):
    for path in images.glob("*.png"):
        path.unlink()
    with pytest.raises(LabError, match="holds no images"):
        find_examples(data_config(person))


def test_folder_without_repeats_is_named(person, images):
    images.rename(images.with_name("zqx person"))
    with pytest.raises(LabError, match=r"<repeats>_<trigger> <class>.*got 'zqx person'"):
        find_examples(data_config(person))


@pytest.mark.parametrize("spoil", ["cut", "text"])
def test_unreadable_image_is_named(spoil, person, images):
    path = images / "03.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if spoil == "cut" else b"no image")
    with pytest.raises(LabError, match=r"03\.png: the image can't be read"):
        find_examples(data_config(person))


def test_images_without_captions_are_counted_and_take_the_class(person, images, caplog):
    (images / "01.txt").unlink()
    (images / "04.txt").unlink()
    with caplog.at_level(logging.WARNING):
        examples = find_examples(data_config(person))
    assert "2 of 6 training images have no .txt file" in caplog.text
    assert examples.train[1].caption.text == "zqx person"


def test_empty_caption_is_named(person, images):
    (images / "02.txt").write_text("")
    with pytest.raises(LabError, match=r"02\.txt: the caption file is empty"):
        find_examples(data_config(person))


def test_batch_larger_than_the_set_is_refused(person):
    with pytest.raises(ConfigError, match=r"data\.batch_size must be at most 12 .* got 13"):
        find_examples(data_config(person, batch_size=13))


def test_fingerprints_follow_the_content(person, images):
    before = find_examples(data_config(person)).fingerprints()
    (images / "00.txt").write_text("zqx person, another caption")
    captions_changed = find_examples(data_config(person)).fingerprints()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(images / "00.png")
    images_changed = find_examples(data_config(person)).fingerprints()
    assert before["images"] == captions_changed["images"] != images_changed["images"]
    assert before["captions"] != captions_changed["captions"] == images_changed["captions"]
