"""Choices in prompts: `{a|b}` and wildcards."""

import pytest

from lora_lab.errors import LabError
from lora_lab.prompts import Wildcards, expand_choices, wildcards_of


def test_choices_depend_on_the_seed_alone():
    text = "{red|green|blue} {a|{b|c}} {subject}"
    assert expand_choices(text, 3) == expand_choices(text, 3)
    seen = {expand_choices(text, seed) for seed in range(60)}
    assert len(seen) == 9 and all(found.endswith("{subject}") for found in seen)


def test_wildcards_take_a_line_of_their_file(tmp_path):
    (tmp_path / "hair.txt").write_text("# colours\nred\n\nblue __length__\n", encoding="utf-8")
    (tmp_path / "length.txt").write_text("long\n", encoding="utf-8")
    seen = {expand_choices("__hair__ hair", seed, Wildcards(tmp_path)) for seed in range(20)}
    assert seen == {"red hair", "blue long hair"}
    assert expand_choices("__hair__", 0) == "__hair__"


def test_an_unknown_wildcard_is_named_with_those_that_exist(tmp_path):
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "colour.txt").write_text("red\n", encoding="utf-8")
    (tmp_path / "hair.txt").write_text("long\n", encoding="utf-8")
    assert expand_choices("__group/colour__", 0, Wildcards(tmp_path)) == "red"
    with pytest.raises(LabError, match=r"__none__ is missing; there are: group/colour, hair"):
        expand_choices("a __none__", 0, Wildcards(tmp_path))


def test_a_circle_of_wildcards_ends(tmp_path):
    (tmp_path / "a.txt").write_text("__a__\n", encoding="utf-8")
    assert expand_choices("__a__", 0, Wildcards(tmp_path)) == "__a__"


def test_an_empty_wildcard_file_is_refused(tmp_path):
    (tmp_path / "hair.txt").write_text("# nothing yet\n", encoding="utf-8")
    with pytest.raises(LabError, match="is empty"):
        expand_choices("__hair__", 0, Wildcards(tmp_path))


def test_a_wildcard_can_not_leave_its_folder(tmp_path):
    (tmp_path / "secret.txt").write_text("key\n", encoding="utf-8")
    inside = tmp_path / "wildcards"
    inside.mkdir()
    for name in ("__../secret__", "__/secret__", "__..\\secret__"):
        assert "key" not in expand_choices(name, 0, Wildcards(inside))


def test_wildcards_that_multiply_end(tmp_path):
    (tmp_path / "a.txt").write_text("__a__ __a__\n", encoding="utf-8")
    assert len(expand_choices("__a__", 0, Wildcards(tmp_path))) < 1_000_000


def test_the_wildcards_of_a_prompt_are_listed():
    assert wildcards_of("__b__ __a/c__ __b__ _d_") == ["b", "a/c"]
