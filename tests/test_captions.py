from pathlib import Path

import pytest

from lora_lab.data.captions import (
    drop_tags,
    folder_meaning,
    kept_parts,
    read_caption,
    shuffle_caption,
    training_caption,
    with_trigger,
)
from lora_lab.errors import LabError
from train_setup import data_config


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


def shown(step: int, epoch: int = 1, text: str = "a, b, c, d", **options: object) -> str:
    return training_caption(text, data_config(Path(), **options), 1, "image", step, epoch, 0)


def test_a_caption_is_shown_as_it_is_unless_asked_for():
    assert shown(1, text="a,b ,  c") == "a,b ,  c"


def test_captions_are_dropped_at_their_rate_and_by_step_alone():
    empty = [step for step in range(1, 2001) if shown(step, caption_dropout_rate=0.2) == ""]
    assert len(empty) == pytest.approx(400, abs=4 * (2000 * 0.2 * 0.8) ** 0.5)
    more = [step for step in range(1, 2001) if shown(step, caption_dropout_rate=0.3) == ""]
    assert set(empty) < set(more), "a higher rate must drop the same ones and others"


def test_every_nth_epoch_drops_all_captions():
    seen = [shown(1, epoch, caption_dropout_every_n_epochs=3) == "" for epoch in range(1, 7)]
    assert seen == [False, False, True, False, False, True]


def test_parts_are_dropped_at_their_rate_but_the_kept_ones():
    texts = [drop_tags("a, b, c, d", 1, 0.25, 1, "image", step, 0) for step in range(1000)]
    assert all(text.split(", ")[0] == "a" for text in texts)
    for part in "bcd":
        count = sum(part in text for text in texts)
        assert count == pytest.approx(750, abs=4 * (1000 * 0.25 * 0.75) ** 0.5)
    assert {drop_tags("a, b", 0, 1.0, 1, "image", 1, 0)} == {""}


def test_the_parts_that_stay_do_not_depend_on_the_shuffle():
    for step in range(50):
        plain = shown(step, caption_tag_dropout_rate=0.5)
        mixed = shown(step, caption_tag_dropout_rate=0.5, shuffle_caption=True)
        assert sorted(plain.split(", ")) == sorted(mixed.split(", "))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("red", "zqx person, red"),
        ("zqx person, red", "zqx person, red"),
        ("zqx person", "zqx person"),
        ("zqx person in red", "zqx person in red"),
        ("zqx personality", "zqx person, zqx personality"),
    ],
)
def test_the_trigger_stands_first_once(text, expected):
    assert with_trigger(text, "zqx person") == expected
    assert with_trigger(text, None) == text


def test_the_trigger_always_stays():
    config = data_config(Path(), trigger="zqx", keep_tokens=0)
    assert kept_parts("zqx, red", config) == 1
    assert kept_parts("zqx, red", data_config(Path(), trigger="zqx", keep_tokens=2)) == 2
    assert kept_parts("a person", config) == 0
    options = {"trigger": "zqx", "shuffle_caption": True, "caption_tag_dropout_rate": 0.5}
    assert all(shown(s, text="zqx, b, c", **options).startswith("zqx") for s in range(50))


@pytest.mark.parametrize("number", ["1000000000", "10001", "0", "9" * 5000])
def test_a_folder_whose_number_is_out_of_range_is_refused(number):
    with pytest.raises(LabError, match="repeats from 1 to 10000"):
        folder_meaning(Path(f"{number}_person"))
