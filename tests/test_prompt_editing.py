"""Prompts that change from step to step, and compositions."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lab.prompts import (
    Wildcards,
    edited_texts,
    expand_choices,
    parse_prompt,
    split_composition,
    take_networks,
    tokenize,
)
from tiny_model import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
PROMPT_SIGNS = st.text(alphabet="ab ,:.()[]\\<>{}|_1-=BREAKNDlora\n☃", max_size=60)


def phases(text, steps=10):
    return [(phase.last_step, phase.text) for phase in edited_texts(text, steps)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # The first twelve are the examples in the documentation of A1111's parser.
        ("test", [(10, "test")]),
        ("a [b:3]", [(3, "a "), (10, "a b")]),
        ("a [b: 3]", [(3, "a "), (10, "a b")]),
        ("a [[[b]]:2]", [(2, "a "), (10, "a [[b]]")]),
        ("[(a:2):3]", [(3, ""), (10, "(a:2)")]),
        ("a [b : c : 1] d", [(1, "a b  d"), (10, "a  c  d")]),
        ("a[b:[c:d:2]:1]e", [(1, "abe"), (2, "ace"), (10, "ade")]),
        ("a [unbalanced", [(10, "a [unbalanced")]),
        ("a [b:.5] c", [(5, "a  c"), (10, "a b c")]),
        ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (10, "((a][:b:c d")]),
        ("[a|(b:1.1)]", [(n, "a" if n % 2 else "(b:1.1)") for n in range(1, 11)]),
        ("[fe|||]male", [(n, "female" if n % 4 == 1 else "male") for n in range(1, 11)]),
        ("[a::4]b", [(4, "ab"), (10, "b")]),
        ("[a:b:1.0]", [(10, "a")]),
        ("[a:b:99]", [(10, "a")]),
        ("[a:b:0]", [(10, "b")]),
        ("[a:b:-3]", [(10, "b")]),
        ("[word] (more:1.2)", [(10, "[word] (more:1.2)")]),
        (r"\[a:b:3\]", [(10, r"\[a:b:3\]")]),
        ("a | b [c:3]", [(10, "a | b [c:3]")]),
    ],
)
def test_edits_are_those_of_a1111(text, expected):
    assert phases(text) == expected


def test_a_composition_has_weights_behind_its_parts():
    parts = split_composition("a cat :1.2 AND a dog AND  (red:1.3) bird: -.5")
    assert [(part.text.strip(), part.weight) for part in parts] == [
        ("a cat", 1.2),
        ("a dog", 1.0),
        ("(red:1.3) bird", -0.5),
    ]
    assert split_composition("sand AND")[1].text == "" and len(split_composition("BRAND new")) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<lora:one>", ("one", 1.0, 1.0)),
        ("<lora:one:0.8>", ("one", 0.8, 0.8)),
        ("<lora:one:0.8:.5>", ("one", 0.8, 0.5)),
        ("<lora:one:te=0:unet=1.5>", ("one", 0.0, 1.5)),
        ("<lyco:one:-1>", ("one", -1.0, -1.0)),
        ("<lora: one : \x1c.8 :unet = \x1f1>", ("one", 0.8, 1.0)),
    ],
)
def test_a_lora_tag_has_a_weight_for_each_part(text, expected):
    rest, networks = take_networks(f"a {text} b")
    (tag,) = networks.loras
    assert (tag.name, tag.text_encoder, tag.unet) == expected
    assert rest == "a  b" and not networks.problems


@pytest.mark.parametrize(
    "text", ["<lora:one:high>", "<hypernet:x:1>", "<lora: :1>", "<lora:a:1:1:1>"]
)
def test_a_tag_that_can_not_be_followed_is_named(text):
    rest, networks = take_networks(f"a {text} b")
    assert rest == "a  b" and not networks.loras
    assert len(networks.problems) == 1 and text in networks.problems[0]


@given(st.one_of(st.text(max_size=80), PROMPT_SIGNS), st.integers(1, 30))
@settings(max_examples=400, deadline=None)
def test_no_text_can_break_the_parser(text, steps):
    chosen = expand_choices(text, 0)
    for part in split_composition(take_networks(chosen)[0]):
        edits = edited_texts(part.text, steps)
        assert edits[-1].last_step == steps
        for phase in edits[:3]:
            chunks = tokenize(parse_prompt(phase.text), TOKENIZER)
            assert chunks.input_ids.shape == chunks.weights.shape == (len(chunks.input_ids), 77)


@given(PROMPT_SIGNS)
@settings(max_examples=100, deadline=None)
def test_wildcards_never_leave_their_folder(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("wildcards", numbered=True)
    (folder / "a.txt").write_text("red\n", encoding="utf-8")
    wildcards = Wildcards(folder)
    known = text.replace("_", "") + "__a__"
    assert expand_choices(known, 1, wildcards).endswith("red")


@pytest.mark.parametrize(
    "text", ["[" * 10_000, "[a:" * 3_000, "([" * 3_000, "[a|" * 2_000 + "]" * 2_000]
)
def test_a_long_prompt_of_brackets_is_read_in_linear_time(text):
    began = time.process_time()
    edited_texts(text, 25)
    parse_prompt(text)
    assert time.process_time() - began < 20  # a reader that tried all ways would never end
