"""What a data folder holds and no run reads is named, in the log and in the data report."""

import logging

import pytest
from PIL import Image

from lora_lab.data.folders import find_examples
from lora_lab.data.leftovers import find_leftovers
from tiny_person import make_tiny_person
from train_setup import data_config


@pytest.fixture
def folder(tmp_path):
    """A concept with two of everything that is not read."""
    root = make_tiny_person(tmp_path / "person")
    concept = root / "train" / "2_zqx person"
    (concept / "orphan.txt").write_text("zqx person")
    for name in ("scan.TIFF", "turning.gif"):
        Image.new("RGB", (32, 32)).save(concept / name)
    (concept / "scan.txt").write_text("zqx person, scanned")
    (concept / "more").mkdir()
    Image.new("RGB", (32, 32)).save(concept / "more" / "a.png")
    Image.new("RGB", (32, 32)).save(root / "train" / "loose.png")
    return root


def test_each_is_named_with_its_reason(folder):
    found = {left.path: left.why for left in find_leftovers(folder / "train", ".txt")}
    concept = "2_zqx person"
    assert found.keys() == {
        *(f"{concept}/{name}" for name in ("orphan.txt", "scan.TIFF", "turning.gif", "more/")),
        "loose.png",
    }
    assert found[f"{concept}/orphan.txt"] == "a caption without its image"
    assert found[f"{concept}/more/"] == "1 images in a folder within a concept's"
    assert "save it as png" in found[f"{concept}/scan.TIFF"]


def test_a_clean_folder_has_none(tiny_person):
    assert find_leftovers(tiny_person / "train", ".txt") == []


def test_a_run_warns_of_them(folder, caplog):
    with caplog.at_level(logging.WARNING):
        find_examples(data_config(folder))
    assert any("5 files or folders are not read" in line for line in caplog.messages)


def test_captions_of_several_lines_are_told(folder, caplog):
    caption = folder / "train" / "2_zqx person" / "00.txt"
    caption.write_text("zqx person\n\nred background\n")
    for lines, text in (("all", "zqx person red background"), ("first", "zqx person")):
        with caplog.at_level(logging.WARNING):
            examples = find_examples(data_config(folder, caption_lines=lines))
        assert examples.train[0].caption.text == text
        assert any("1 of 6 captions have several lines" in line for line in caplog.messages)
        caplog.clear()
