"""Captions for the UNet: chunks, weights, and what is kept of a frozen text encoder."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lora_lab.checkpoint.base_model import BaseModel, encode_prompt_hidden, load_base
from lora_lab.data.tokens import CaptionTokens, caption_tokens, tokenize
from lora_lab.prompts import apply_weights, parse_prompt
from lora_lab.prompts import tokenize as prompt_tokens
from lora_lab.text.caption_encoder import CaptionEncoder, KeptAnswers, encode_captions
from train_setup import data_config

LONG = ", ".join(f"tag{index}" for index in range(40))


@pytest.fixture(scope="module")
def base(tiny_base: Path) -> BaseModel:
    return load_base(str(tiny_base))


def tokens(base: BaseModel, text: str, **options: Any) -> CaptionTokens:
    return caption_tokens(base.tokenizer, text, data_config(Path(), **options))


def encoded(base: BaseModel, one: CaptionTokens) -> torch.Tensor:
    weights = None if one.weights is None else one.weights[None]
    return encode_captions(base.text_encoder, one.input_ids[None], weights, 2)[0]


def test_75_tokens_are_tokenized_as_before(base):
    assert torch.equal(tokens(base, LONG).input_ids, tokenize(base.tokenizer, LONG))


@pytest.mark.parametrize("length", [150, 225])
def test_long_captions_are_cut_as_sd_scripts_cuts_them(base, length):
    """One row of ids, padded with the end token, sliced; each slice between start and end."""
    flat = base.tokenizer(
        LONG, padding="max_length", truncation=True, max_length=length + 2, return_tensors="pt"
    ).input_ids[0]
    rows = [
        torch.cat([flat[:1], flat[start : start + 75], flat[-1:]])
        for start in range(1, length + 2 - 77 + 2, 75)
    ]
    assert torch.equal(tokens(base, LONG, max_token_length=length).input_ids, torch.stack(rows))


def test_chunks_are_joined_with_one_start_and_one_end(base):
    one = tokens(base, LONG, max_token_length=225)
    chunks = encode_prompt_hidden(base.text_encoder, one.input_ids, 2)  # (3, 77, D)
    joined = encoded(base, one)
    assert joined.shape[0] == 227
    expected = torch.cat([chunks[0, :1], *(chunk[1:-1] for chunk in chunks), chunks[-1, -1:]])
    assert torch.equal(joined, expected)


def test_a_weight_changes_its_own_words_and_the_mean_stays(base):
    plain = encoded(base, tokens(base, "zqx person, red", weighted_captions=True))
    heavy_tokens = tokens(base, "zqx person, (red:1.5)", weighted_captions=True)
    heavy = encoded(base, heavy_tokens)
    assert heavy_tokens.weights is not None and set(heavy_tokens.weights.unique().tolist()) == {
        1,
        1.5,
    }
    assert not torch.equal(plain, heavy)
    assert torch.equal(
        tokens(base, "zqx person, red", weighted_captions=True).input_ids, heavy_tokens.input_ids
    )


def test_without_the_mean_weights_multiply_alone_as_in_sd_scripts(base):
    one = tokens(base, "zqx person, (red:1.5)", weighted_captions=True, max_token_length=150)
    assert one.weights is not None
    ids, weights = one.input_ids[None], one.weights[None]
    plain = encode_captions(base.text_encoder, ids, None, 2)[0]
    multiplied = encode_captions(base.text_encoder, ids, weights, 2, restore_mean=False)[0]
    spread = torch.cat([torch.ones(1), one.weights[:, 1:-1].flatten(), torch.ones(1)])
    torch.testing.assert_close(multiplied, plain * spread[:, None])


def test_the_mean_is_restored_only_when_asked(base, monkeypatch):
    one = tokens(base, "zqx person, (red:1.5)", weighted_captions=True)
    assert one.weights is not None
    bias = base.text_encoder.final_layer_norm.bias
    monkeypatch.setattr(bias, "data", bias.data + 1)  # else the means are 0, and nothing to restore
    arguments = (base.text_encoder, one.input_ids[None], one.weights[None], 2)
    plain = encode_captions(*arguments[:2], None, 2)
    assert encode_captions(*arguments).mean() == pytest.approx(float(plain.mean()), rel=1e-4)
    multiplied = encode_captions(*arguments, restore_mean=False)
    assert float(multiplied.mean() / plain.mean()) > 1.005


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ("zqx\u2019s \u201cred\u201d hat", 'zqx\'s "red" hat'),
        ("o\ufb03ce, \ufb02oor", "office, floor"),
        ("\uff52\uff45\uff44 person", "red person"),
        ("cafe\u0301 person", "café person"),
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_typographers_letters_are_read_as_plain_ones(base, typed, plain, weighted):
    """What ftfy does for OpenAI's tokenizer, and so for the web UI and kohya."""
    options = {"weighted_captions": weighted}
    found = tokens(base, typed, **options).input_ids
    assert torch.equal(found, tokens(base, plain, **options).input_ids)
    assert torch.equal(
        prompt_tokens(parse_prompt(typed), base.tokenizer).input_ids,
        prompt_tokens(parse_prompt(plain), base.tokenizer).input_ids,
    )


def test_brackets_are_text_unless_asked_for(base):
    assert not torch.equal(tokens(base, "(red:1.5)").input_ids, tokens(base, "red").input_ids)


def test_kept_answers_are_the_bytes_of_fresh_ones(base):
    ids = torch.stack([tokens(base, text).input_ids for text in ("red", "zqx person", "red")])
    keeps, forgets = (CaptionEncoder(2, frozen=True, keep=keep) for keep in (True, False))
    first = keeps(base.text_encoder, ids, None)
    assert len(keeps.kept.answers) == 2 and not forgets.kept.answers
    again = keeps(base.text_encoder, ids.flip(0), None).flip(0)
    assert torch.equal(first, again) and torch.equal(first, forgets(base.text_encoder, ids, None))


def test_weights_are_part_of_what_is_kept(base):
    keeps = CaptionEncoder(2, frozen=True)
    one = tokens(base, "zqx, red", weighted_captions=True)
    other = tokens(base, "zqx, (red:1.5)", weighted_captions=True)
    ids = torch.stack([one.input_ids, other.input_ids])
    assert one.weights is not None and other.weights is not None
    rows = keeps(base.text_encoder, ids, torch.stack([one.weights, other.weights]))
    assert not torch.equal(rows[0], rows[1])


def test_runs_that_share_answers_encode_a_caption_once_for_each_clip_skip(base, monkeypatch):
    asked = []

    def counted(*arguments: Any, **named: Any) -> torch.Tensor:
        asked.append(arguments[3])
        return encode_captions(*arguments, **named)

    monkeypatch.setattr("lora_lab.text.caption_encoder.encode_captions", counted)
    ids, kept = tokens(base, "zqx person").input_ids[None], KeptAnswers()
    rows = [
        CaptionEncoder(clip_skip, True, restore_mean=mean, kept=kept)(base.text_encoder, ids, None)
        for clip_skip, mean in ((2, True), (2, True), (1, True), (2, False))
    ]
    assert asked == [2, 1, 2]
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])
    assert torch.equal(rows[1], encode_captions(base.text_encoder, ids, None, 2))


def test_a_trained_text_encoder_is_asked_each_time(base):
    ids = tokens(base, "red").input_ids[None]
    encoder = CaptionEncoder(2, frozen=False)
    encoder(base.text_encoder, ids, None)
    assert not encoder.kept.answers


def test_memory_for_kept_answers_has_an_end(base, monkeypatch):
    monkeypatch.setattr("lora_lab.text.caption_encoder.MAX_KEPT_BYTES", 77 * 32 * 4)
    encoder = CaptionEncoder(2, frozen=True)
    for text in ("red", "green", "blue"):
        encoder(base.text_encoder, tokens(base, text).input_ids[None], None)
    assert len(encoder.kept.answers) == 1


def test_gradients_through_weights_are_finite_where_means_are_zero():
    hidden = torch.tensor([[[1.0, -1.0], [2.0, -2.0]]], requires_grad=True)
    apply_weights(hidden, torch.tensor([[1.0, 1.5]])).sum().backward()
    assert hidden.grad is not None and torch.isfinite(hidden.grad).all()
