import logging
import os
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


def add(folder: Path, *names: str, size: int = 32) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        Image.new("RGB", (size, size), (40 * index, 0, 0)).save(folder / name)
    return folder


def test_several_concepts_keep_their_own_repeats_and_classes(person):
    add(person / "train" / "5_sks dog", "x.png")
    examples = find_examples(data_config(person)).train
    assert [(e.key, e.repeats) for e in examples][-1] == ("5_sks dog/x.png", 5)
    assert examples[-1].caption.text == "sks dog" and examples[0].repeats == 2


@pytest.mark.parametrize("spoilt", [b"00\xff.png", b"2_\xff/00.png"])
def test_a_name_that_is_no_text_is_told(person, images, spoilt):
    path = os.fsencode(images.parent if b"/" in spoilt else images) + b"/" + spoilt
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.rename(images / "00.png", path)
    with pytest.raises(LabError, match="is not UTF-8; rename it"):
        find_examples(data_config(person))


def test_a_data_folder_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(LabError, match=r"file can't be read \(Not a directory\)"):
        find_examples(data_config(tmp_path / "file"))


@pytest.mark.parametrize("suffix", [".caption", ".cap"])
def test_captions_with_another_extension_are_refused_with_the_key_to_set(person, images, suffix):
    for path in images.glob("*.txt"):
        path.rename(path.with_suffix(suffix))
    expected = rf"6 of 6 images have a {suffix} file instead.*set data\.caption_extension={suffix}"
    with pytest.raises(ConfigError, match=expected):
        find_examples(data_config(person))
    for path in person.rglob("*.txt"):
        path.rename(path.with_suffix(suffix))
    examples = find_examples(data_config(person, caption_extension=suffix)).train
    assert not any(example.caption.from_folder for example in examples)


def test_metadata_jsonl_gives_captions(person, images):
    (images / "00.txt").unlink()
    (images / "metadata.jsonl").write_text('{"file_name": "00.png", "text": "zqx, from the list"}')
    assert find_examples(data_config(person)).train[0].caption.text == "zqx, from the list"


def test_two_captions_that_differ_are_refused(person, images):
    (images / "metadata.jsonl").write_text('{"file_name": "00.png", "text": "something else"}')
    with pytest.raises(LabError, match=r"00\.txt says .* metadata\.jsonl says 'something else'"):
        find_examples(data_config(person))


def test_an_imagefolder_of_hugging_face_is_read(tmp_path, caplog):
    folder = add(tmp_path / "set", "a.png", "b.png", "c.png", "d.png")
    lines = [f'{{"file_name": "{name}.png", "text": "zqx {name}"}}' for name in "abcd"]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    with caplog.at_level(logging.INFO):
        examples = find_examples(data_config(folder)).train
    assert [e.caption.text for e in examples] == ["zqx a", "zqx b", "zqx c", "zqx d"]
    assert "4 loose images are read as one concept called 'set', shown once an epoch" in caplog.text


def test_metadata_that_names_an_image_out_of_reach_is_refused(person):
    add(person / "train" / "2_zqx person" / "deep", "x.png")
    line = '{"file_name": "2_zqx person/deep/x.png", "text": "x"}'
    (person / "train" / "metadata.jsonl").write_text(line)
    with pytest.raises(LabError, match=r"names .*x\.png, which is not read"):
        find_examples(data_config(person))


def test_loose_images_beside_concepts_are_told(person, caplog):
    add(person / "train", "lost.png")
    with caplog.at_level(logging.WARNING):
        assert len(find_examples(data_config(person)).train) == 6
    assert "1 images lie beside the concept folders and are not used" in caplog.text


def test_numbered_folders_without_train_are_read(person, caplog):
    with caplog.at_level(logging.INFO):
        examples = find_examples(data_config(person / "train")).train
    assert len(examples) == 6 and "has no train/: its folders 2_zqx person" in caplog.text


def test_the_trigger_is_prepended_once(person, images):
    (images / "00.txt").write_text("red background")
    examples = find_examples(data_config(person, trigger="zqx person"))
    texts = [example.caption.text for example in examples.train]
    assert texts[0] == "zqx person, red background"
    assert all(text.count("zqx person") == 1 for text in texts)


@pytest.mark.parametrize(
    ("count", "repeats", "matched"),
    [
        (3, 1, [4, 4, 4]),  # 12 samples of training images
        (5, 1, [3, 3, 2, 2, 2]),
        (20, 1, [1] * 12),  # the last eight are not used
        (3, 5, [5, 5, 5]),
        (7, 2, [2] * 6),
    ],
)
def test_regularisation_images_are_matched_as_sd_scripts_does(person, count, repeats, matched):
    add(person / "reg" / f"{repeats}_person", *[f"{index:02}.png" for index in range(count)])
    reg = find_examples(data_config(person)).reg
    assert [example.repeats for example in reg] == matched
    assert all(example.is_reg and example.key.startswith("reg/") for example in reg)


def test_regularisation_can_be_turned_off_and_counts_in_the_fingerprints(person):
    before = find_examples(data_config(person)).fingerprints()
    add(person / "reg" / "1_person", "a.png")
    assert find_examples(data_config(person)).fingerprints() != before
    without = find_examples(data_config(person, regularization=False))
    assert without.reg == [] and without.fingerprints() == before


def test_masks_count_in_the_fingerprints_where_they_are_used(person, images):
    before = find_examples(data_config(person)).fingerprints()
    Image.new("L", (32, 32), 255).save(images / "00.mask.png")
    off, on = (find_examples(data_config(person, masked_loss=used)) for used in (False, True))
    assert len(on.train) == 6 and on.train[0].mask is not None and on.train[1].mask is None
    assert off.fingerprints() == before != on.fingerprints()


def test_masked_loss_without_masks_is_refused(person):
    with pytest.raises(ConfigError, match=r"data\.masked_loss must be .* no image has a mask"):
        find_examples(data_config(person, masked_loss=True))
