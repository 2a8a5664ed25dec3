"""What holds for every prompt: texts are drawn at random, and a second reading is written here."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_lab.prompts import (
    edited_texts,
    expand_choices,
    parse_prompt,
    plain_text,
    split_composition,
    take_networks,
    token_ids,
    tokenize,
)
from tiny_model import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
WORDS = st.text(alphabet="abcxyz ,.!é☃", min_size=1, max_size=12)
"""Text without a sign that means something."""
SIGNS = st.text(alphabet="ab:,.()[]\\ ☃", max_size=40)
WEIGHTS = st.integers(-30, 30).map(lambda tenths: tenths / 10)
MANY = settings(max_examples=200, deadline=None, derandomize=True)


def escaped(text: str) -> str:
    return "".join(f"\\{sign}" if sign in "\\()[]" else sign for sign in text)


@MANY
@given(SIGNS)
def test_an_escaped_text_is_itself_with_weight_1(text):
    assert parse_prompt(escaped(text)).pieces == (((text, 1.0),) if text else ())


@MANY
@given(WORDS, st.integers(0, 4), st.integers(0, 4), st.booleans())
def test_brackets_around_a_text_multiply(text, rounds, squares, closed):
    """1.1 to the power of the round ones less the square ones, also where none is closed."""
    prompt = "(" * rounds + "[" * squares + text + ("]" * squares + ")" * rounds if closed else "")
    ((found, weight),) = parse_prompt(prompt).pieces
    assert found == text and weight == pytest.approx(1.1 ** (rounds - squares))


@MANY
@given(st.lists(st.tuples(WORDS, WEIGHTS), min_size=1, max_size=5))
def test_each_text_has_the_weight_behind_it(parts):
    """Neighbours of one weight are one piece."""
    found = parse_prompt("".join(f"({text}:{weight})" for text, weight in parts)).pieces
    expected: list[tuple[str, float]] = []
    for text, weight in parts:
        if expected and expected[-1][1] == weight:
            expected[-1] = (expected[-1][0] + text, weight)
        else:
            expected.append((text, weight))
    assert list(found) == expected
    words = " ".join("".join(text for text, _ in parts).split())
    assert plain_text("".join(f"({text}:{weight})" for text, weight in parts)) == words


LONG = st.builds(str.__mul__, st.text("ab, ", min_size=1, max_size=12), st.integers(1, 12))
"""Up to some 140 tokens, with commas and without: chunks fill, and are cut after a comma."""


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(LONG, WEIGHTS), max_size=4))
def test_chunks_hold_every_token_once_in_order_with_its_weight(parts):
    parsed = parse_prompt("".join(f"({text}:{weight})" for text, weight in parts))
    chunks = tokenize(parsed, TOKENIZER)
    start, end = TOKENIZER.bos_token_id, TOKENIZER.eos_token_id
    found = []
    for ids, weights in zip(chunks.input_ids.tolist(), chunks.weights.tolist(), strict=True):
        filled = ids.index(end)
        assert ids[0] == start and set(ids[filled:]) == {end} and set(weights[filled:]) <= {1.0}
        found += list(zip(ids[1:filled], weights[1:filled], strict=True))
    expected = [
        (token, pytest.approx(piece[1], rel=1e-6))
        for piece in parsed.pieces
        if piece is not None
        for token in token_ids(TOKENIZER, piece[0])
    ]
    assert found == expected


@dataclass(frozen=True)
class Edit:
    """``[before:after:when]``."""

    before: object
    after: object
    when: float
    """A step, or with a fraction a share of the steps."""


@dataclass(frozen=True)
class Turns:
    """``[a|b|c]``."""

    options: list


WHENS = st.one_of(st.integers(0, 14), st.sampled_from([0.125, 0.25, 0.5, 0.75]))


def forms(inner: st.SearchStrategy) -> st.SearchStrategy:
    edits = st.builds(Edit, inner, inner, WHENS)
    return edits | st.builds(Turns, st.lists(inner, min_size=2, max_size=3))


INNER = st.recursive(
    WORDS, lambda inner: forms(inner) | st.lists(inner, min_size=2, max_size=3), max_leaves=6
)
TREES = st.lists(WORDS | forms(INNER), min_size=1, max_size=3)


def written(tree: object) -> str:
    if isinstance(tree, Edit):
        return f"[{written(tree.before)}:{written(tree.after)}:{tree.when}]"
    if isinstance(tree, Turns):
        return f"[{'|'.join(written(option) for option in tree.options)}]"
    return "".join(map(written, tree)) if isinstance(tree, list) else str(tree)


def at_step(tree: object, step: int, steps: int) -> str:
    """What the web UI's documentation says of each form, word for word."""
    if isinstance(tree, Edit):
        last = tree.when if isinstance(tree.when, int) else int(tree.when * steps)
        return at_step(tree.before if step <= last else tree.after, step, steps)
    if isinstance(tree, Turns):
        return at_step(tree.options[(step - 1) % len(tree.options)], step, steps)
    return "".join(at_step(t, step, steps) for t in tree) if isinstance(tree, list) else str(tree)


@MANY
@given(TREES, st.integers(1, 12))
def test_an_edited_prompt_has_the_text_of_its_forms_in_each_step(tree, steps):
    phases = edited_texts(written(tree), steps)
    ends = [phase.last_step for phase in phases]
    assert ends == sorted(set(ends)) and ends[-1] == steps
    for step in range(1, steps + 1):
        text = next(phase.text for phase in phases if phase.last_step >= step)
        assert text == at_step(tree, step, steps)


@MANY
@given(st.lists(st.tuples(WORDS, WEIGHTS), min_size=1, max_size=4))
def test_a_composition_comes_apart_into_what_was_put_together(parts):
    found = split_composition(" AND ".join(f"{text} :{weight}" for text, weight in parts))
    assert [(part.text.strip(), part.weight) for part in found] == [
        (text.strip(), weight) for text, weight in parts
    ]


@MANY
@given(
    st.lists(
        st.tuples(WORDS, st.from_regex(r"[A-Za-z][\w-]{0,8}", fullmatch=True), WEIGHTS, WEIGHTS),
        max_size=4,
    )
)
def test_tags_are_taken_out_in_order_and_the_text_stays(parts):
    rest, networks = take_networks("".join(f"{t}<lora:{name}:{a}:{b}>" for t, name, a, b in parts))
    assert rest == "".join(text for text, *_ in parts) and not networks.problems
    found = [(tag.name, tag.text_encoder, tag.unet) for tag in networks.loras]
    assert found == [(name, a, b) for _, name, a, b in parts]


@MANY
@given(st.lists(st.lists(WORDS, min_size=2, max_size=3), max_size=3), st.integers(0, 2**32))
def test_choices_are_among_those_that_are_offered(groups, seed):
    text = ";".join("{" + "|".join(options) + "}" for options in groups)
    chosen = expand_choices(text, seed)
    assert chosen == expand_choices(text, seed)
    for option, options in zip(chosen.split(";") if groups else [], groups, strict=True):
        assert option in [one.strip() for one in options]
