"""A1111's prompt syntax: weights and chunks."""

import pytest
import torch

from lora_lab.prompts import (
    apply_weights,
    parse_prompt,
    plain_text,
    tokenize,
)
from tiny_model import tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def pieces(text):
    """(text, weight rounded to 4 digits) of a prompt; None for a new chunk."""
    return [p if p is None else (p[0], round(p[1], 4)) for p in parse_prompt(text).pieces]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a cat", [("a cat", 1.0)]),
        ("(cat)", [("cat", 1.1)]),
        ("((cat))", [("cat", 1.21)]),
        ("[cat]", [("cat", 0.9091)]),
        ("[[cat]]", [("cat", 0.8264)]),
        ("(cat:1.3)", [("cat", 1.3)]),
        ("(cat: .5 )", [("cat", 0.5)]),
        ("(cat:-1)", [("cat", -1.0)]),
        ("a (cat:1.3), dog", [("a ", 1.0), ("cat", 1.3), (", dog", 1.0)]),
        ("(a, (b:1.5))", [("a, ", 1.1), ("b", 1.65)]),
        ("a \\(b\\) \\[c\\] \\\\", [("a (b) [c] \\", 1.0)]),
        ("(open to the end", [("open to the end", 1.1)]),
        ("a) b] c:1.3)", [("a) b] c:1.3)", 1.0)]),
        ("at 10:30", [("at 10:30", 1.0)]),
        ("[cat:1.3]", [("cat:1.3", 0.9091)]),
        ("a BREAK b", [("a ", 1.0), None, (" b", 1.0)]),
        ("BREAKFAST", [("BREAKFAST", 1.0)]),
        ("(cat:2.) dog", [("cat", 2.0), (" dog", 1.0)]),
        ("a \\b", [("a b", 1.0)]),
        ("(a BREAK b)", [("a ", 1.1), None, (" b", 1.1)]),
        # The example in the documentation of A1111's parser.
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                *(("a ", 1.0), ("house", 1.573), (" ", 1.1), ("on", 1.0), (" a ", 1.1)),
                *(("hill", 0.55), (", sun, ", 1.1), ("sky", 1.4641), (".", 1.1)),
            ],
        ),
    ],
)
def test_weights_are_those_of_a1111(text, expected):
    assert pieces(text) == expected


def test_loras_are_named_and_are_not_part_of_the_text():
    parsed = parse_prompt("a <lora:one:0.8> b <lora:two> c ")
    assert [(tag.name, tag.unet) for tag in parsed.loras] == [("one", 0.8), ("two", 1.0)]
    assert "lora" not in plain_text("a <lora:one:0.8> b") and plain_text("(a:1.2) [b]") == "a b"


def test_a_short_prompt_is_tokenized_as_by_clip():
    expected = TOKENIZER("the person", padding="max_length", max_length=77).input_ids
    assert tokenize(parse_prompt("the person"), TOKENIZER).input_ids.tolist() == [expected]


def test_a_prompt_of_76_tokens_takes_two_chunks():
    assert tokenize(parse_prompt("the " * 75), TOKENIZER).input_ids.shape == (1, 77)
    chunks = tokenize(parse_prompt("the " * 76), TOKENIZER).input_ids
    assert chunks.shape == (2, 77)
    start, end, the = TOKENIZER.bos_token_id, TOKENIZER.eos_token_id, chunks[0, 1]
    assert chunks[1].tolist() == [start, the] + [end] * 75


def test_a_full_chunk_is_cut_after_a_comma_among_its_last_20_tokens():
    near = tokenize(parse_prompt("the " * 60 + ", " + "and " * 20), TOKENIZER)
    assert near.input_ids[0].tolist().count(TOKENIZER.eos_token_id) == 1 + 14
    far = tokenize(parse_prompt("the " * 50 + ", " + "and " * 30), TOKENIZER)
    assert far.input_ids[0].tolist().count(TOKENIZER.eos_token_id) == 1


def test_break_begins_a_new_chunk():
    chunks = tokenize(parse_prompt("the BREAK person"), TOKENIZER).input_ids
    alone = [tokenize(parse_prompt(word), TOKENIZER).input_ids[0] for word in ("the", "person")]
    assert torch.equal(chunks, torch.stack(alone))


def test_weights_stand_beside_their_tokens():
    weights = tokenize(parse_prompt("the (person:1.5) and"), TOKENIZER).weights[0]
    assert weights[:5].tolist() == [1.0, 1.0, 1.5, 1.0, 1.0]


def test_weighting_keeps_each_chunks_mean():
    hidden = torch.randn(2, 77, 8, generator=torch.Generator().manual_seed(0)) + 0.3
    weights = torch.ones(2, 77)
    weights[0, 3:6] = 1.5
    result = apply_weights(hidden, weights)
    assert torch.equal(result[1], hidden[1])
    # By hand: z' = z w, z'' = z' mean(z) / mean(z').
    by_hand = hidden[0] * weights[0][:, None]
    by_hand = by_hand * (hidden[0].mean() / by_hand.mean())
    torch.testing.assert_close(result[0], by_hand)
    torch.testing.assert_close(result.mean(dim=(1, 2)), hidden.mean(dim=(1, 2)))


def test_a_mean_that_is_only_rounding_does_not_scale_the_prompt():
    hidden = torch.randn(1, 77, 8, generator=torch.Generator().manual_seed(0))
    hidden -= hidden.mean(dim=-1, keepdim=True)
    weights = torch.full((1, 77), 1.3)
    torch.testing.assert_close(apply_weights(hidden, weights), hidden * 1.3)
