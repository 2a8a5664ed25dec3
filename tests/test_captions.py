from pathlib import Path

import pytest

from lora_lab.data.captions import folder_meaning, read_caption, shuffle_caption
from lora_lab.errors import LabError


def test_folder_name_gives_repeats_and_class():
    assert folder_meaning(Path("train/10_zqx person")) == (10, "zqx person")


@pytest.mark.parametrize("name", ["zqx person", "0_person", "ten_person", "5", "5_"])
def test_folder_without_a_number_is_refused_by_name(name):
    with pytest.raises(LabError, match=r"must be <repeats>_<trigger> <class>.*rename"):
        folder_meaning(Path("train") / name)


def test_missing_caption_is_the_class(tmp_path):
    caption = read_caption(tmp_path / "a.png", ".txt", "zqx person")
    assert caption.text == "zqx person" and caption.from_folder


def test_extension_counts(tmp_path):
    (tmp_path / "a.caption").write_text("zqx person, smile")
    assert read_caption(tmp_path / "a.png", ".caption", "x").text == "zqx person, smile"
    assert read_caption(tmp_path / "a.png", ".txt", "x").from_folder


def test_line_ends_and_byte_order_mark_are_no_part_of_a_caption(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffzqx person,\r\nä smile\n".encode())
    assert read_caption(tmp_path / "a.png", ".txt", "x").text == "zqx person, ä smile"


def test_empty_caption_file_is_refused_by_name(tmp_path):
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(LabError, match=r"a\.txt: the caption file is empty"):
        read_caption(tmp_path / "a.png", ".txt", "x")


def test_caption_that_is_not_utf8_is_refused_by_name(tmp_path):
    (tmp_path / "a.txt").write_bytes("zqx, gr\u00fcn".encode("latin-1"))
    with pytest.raises(LabError, match=r"a\.txt: a caption must be UTF-8, byte 7 is not"):
        read_caption(tmp_path / "a.png", ".txt", "x")


def test_shuffle_keeps_the_first_parts_and_loses_none():
    text = ", ".join("abcdefgh")
    shuffled = shuffle_caption(text, 2, 1, "image", 3, 0).split(", ")
    assert shuffled[:2] == ["a", "b"] and sorted(shuffled) == list("abcdefgh")


def test_shuffle_depends_on_image_step_and_occurrence():
    text = ", ".join("abcdefghijkl")
    keys = [("image", 3, 0), ("image", 4, 0), ("other", 3, 0), ("image", 3, 1)]
    assert len({shuffle_caption(text, 0, 1, *key) for key in keys}) == 4
    assert shuffle_caption(text, 0, 1, *keys[0]) == shuffle_caption(text, 0, 1, *keys[0])
