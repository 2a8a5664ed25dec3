"""Prompts as hidden states, against computations by hand with the text encoder alone."""

import pytest
import torch
from safetensors.torch import save_file

from lora_lab.checkpoint.base_model import load_base
from lora_lab.errors import LabError
from lora_lab.prompts import Embedding, read_embedding, read_embeddings
from lora_lab.text.conditioning import Conditioning, Guidance, PromptPart, encode
from tiny_model import make_tiny_base


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    model = load_base(str(make_tiny_base(tmp_path_factory.mktemp("base"))))
    model.text_encoder.final_layer_norm.bias.data.fill_(0.3)  # a mean that is not only rounding
    return model


def ids_of(base, text):
    return base.tokenizer(text, add_special_tokens=False).input_ids


def hidden_by_hand(base, ids, clip_skip=2, table=None):
    """One chunk, (77, C): embeddings looked up in a table, CLIP's layers, its last norm."""
    start, end = base.tokenizer.bos_token_id, base.tokenizer.eos_token_id
    padded = torch.tensor([[start, *ids, *[end] * (76 - len(ids))]])
    encoder = base.text_encoder
    old = encoder.embeddings.token_embedding.weight
    if table is not None:
        encoder.embeddings.token_embedding.weight = torch.nn.Parameter(table, requires_grad=False)
    states = encoder(input_ids=padded, output_hidden_states=True).hidden_states
    encoder.embeddings.token_embedding.weight = old
    return encoder.final_layer_norm(states[-clip_skip])[0]


def test_a_plain_prompt_is_what_clip_says(base):
    (part,) = encode(base, "the person", clip_skip=2, calls=20).parts
    expected = hidden_by_hand(base, ids_of(base, "the person"))
    torch.testing.assert_close(part.hidden[0], expected)


def test_weights_multiply_hidden_states_and_keep_the_mean(base):
    (part,) = encode(base, "the (person:1.5)", clip_skip=1, calls=20).parts
    plain = hidden_by_hand(base, ids_of(base, "the person"), clip_skip=1)
    weights = torch.ones(77)
    weights[2 : 2 + len(ids_of(base, "person"))] = 1.5
    weighted = plain * weights[:, None]
    expected = weighted * (plain.mean() / weighted.mean())
    torch.testing.assert_close(part.hidden[0], expected, rtol=1e-4, atol=1e-5)


def test_an_edited_prompt_changes_after_its_step(base):
    (part,) = encode(base, "[the:and:0.5] person", clip_skip=2, calls=10).parts
    first, second = (hidden_by_hand(base, ids_of(base, f"{w} person")) for w in ("the", "and"))
    for call in range(10):
        torch.testing.assert_close(part.at(call), first if call <= 5 else second)


def test_phases_of_other_lengths_are_filled_with_empty_chunks(base):
    (part,) = encode(base, "[the BREAK person:the:0.5]", clip_skip=2, calls=10).parts
    assert part.hidden.shape[:2] == (2, 154)
    torch.testing.assert_close(part.at(9)[77:], hidden_by_hand(base, []))


def test_a_shorter_part_of_a_composition_repeats_its_last_vector(base):
    parts = encode(base, "the :0.5 AND the BREAK person", clip_skip=2, calls=10).parts
    assert [part.weight for part in parts] == [0.5, 1.0]
    assert parts[0].hidden.shape == parts[1].hidden.shape
    assert torch.equal(parts[0].hidden[0, 77:], parts[0].hidden[0, 76].expand(77, -1))


def test_a_textual_inversion_takes_the_place_of_its_name(base):
    width = base.text_encoder.config.hidden_size
    vectors = torch.randn(3, width, generator=torch.Generator().manual_seed(1))
    (part,) = encode(
        base,
        "the person and",
        clip_skip=2,
        calls=10,
        embeddings=[Embedding("person", vectors)],
    ).parts
    old = base.text_encoder.embeddings.token_embedding.weight
    table = torch.cat([old, vectors])  # new tokens at the end of the vocabulary
    new = [len(old), len(old) + 1, len(old) + 2]
    ids = [*ids_of(base, "the"), *new, *ids_of(base, "and")]
    expected = hidden_by_hand(base, ids, table=table)
    torch.testing.assert_close(part.hidden[0], expected)
    (without,) = encode(base, "the person and", clip_skip=2, calls=10).parts
    assert not torch.allclose(part.hidden, without.hidden)


def test_textual_inversions_are_read_as_a1111_and_diffusers_write_them(tmp_path):
    save_file({"emb_params": torch.ones(2, 8, dtype=torch.float16)}, tmp_path / "one.safetensors")
    save_file({"<two>": torch.zeros(8)}, tmp_path / "two.safetensors")
    one, two = read_embeddings([tmp_path], 8)
    assert (one.name, one.vectors.shape, one.vectors.dtype) == ("one", (2, 8), torch.float32)
    assert (two.name, two.vectors.shape) == ("two", (1, 8))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"emb_params": torch.ones(2, 16)},
            r"shape \(2, 16\), this text encoder takes 1 to 75 of 8",
        ),
        ({"emb_params": torch.ones(76, 8)}, r"shape \(76, 8\)"),
        ({"clip_l": torch.ones(2, 8), "clip_g": torch.ones(2, 8)}, "for SDXL"),
        ({"a": torch.ones(8), "b": torch.ones(8)}, "holds 2 tensors"),
    ],
)
def test_files_that_are_no_textual_inversion_of_this_model_are_named(tmp_path, tensors, message):
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(LabError, match=message):
        read_embedding(tmp_path / "x.safetensors", 8)


def test_damaged_pickled_and_missing_files_are_named(tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0")
    for name in ("cut.safetensors", "style.pt", "none.safetensors"):
        with pytest.raises(LabError, match=name):
            read_embedding(tmp_path / name, 8)


def steered(unet, prompts, scale, call=0):
    """Noise for a batch of one, whose negative prompt is all zeros."""
    negative = Conditioning((PromptPart(1.0, (10,), torch.zeros(1, 77, 1)),))
    guidance = Guidance(unet, [Conditioning(tuple(prompts))], [negative], scale)
    return guidance.noise_pred(torch.zeros(1, 4, 2, 2), torch.tensor(1), call)


def mean_of_states(model_input, timestep, states, return_dict):
    """A UNet that predicts the mean of the hidden states everywhere."""
    return (model_input + states.mean(dim=(1, 2))[:, None, None, None],)


def part(weight, *means):
    hidden = torch.tensor(means)[:, None, None].expand(-1, 77, 1)
    return PromptPart(weight, tuple(range(1, len(means) + 1)), hidden)


def test_a_composition_adds_weighted_directions():
    noise = steered(mean_of_states, [part(0.5, 1.0), part(-1.0, 2.0)], 4.0)
    assert torch.equal(noise, torch.full((1, 4, 2, 2), 4.0 * (0.5 * 1.0 - 2.0)))


def test_a_guidance_of_1_leaves_the_negative_prompt_out_unless_parts_have_weights():
    calls = []

    def counted(*arguments, return_dict):
        calls.append(len(arguments[0]))
        return mean_of_states(*arguments, return_dict=return_dict)

    assert steered(counted, [part(1.0, 3.0)], 1.0).mean() == 3
    assert steered(counted, [part(0.5, 3.0)], 1.0).mean() == 1.5
    assert calls == [1, 2]


def test_guidance_goes_by_the_phase_of_the_call():
    means = [steered(mean_of_states, [part(1.0, 1.0, 5.0)], 2.0, call).mean() for call in range(4)]
    assert means == [2, 2, 10, 2]  # past the last phase the web UI begins anew
