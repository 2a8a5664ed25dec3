"""What measures pocket: the classifier's figures, the distance of images, the subject check."""

import itertools
import random

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import poly_mmd

from lora_lab.pocket import attributes as words
from lora_lab.pocket.attributes import with_changes
from lora_lab.pocket.evaluate import held_out_prompts, kernel_distance, sheet
from lora_lab.pocket.person import draw_person
from lora_lab.pocket.reader import READ, Reader, agreement, draw_mixed, moved, read, visible
from lora_lab.pocket.subject import IDENTITY, shares, subject_prompts
from lora_lab.pocket.vae import build_vae, fidelity


def _seen(a: words.Attributes) -> dict[str, object]:
    return {name: getattr(a, name) for name in READ}


def _features(count: int, shift: float, seed: int) -> torch.Tensor:
    drawn = torch.randn(count, 16, generator=torch.Generator().manual_seed(seed)) + shift
    return torch.nn.functional.normalize(drawn, dim=-1)


def test_the_kernel_distance_is_that_of_torchmetrics() -> None:
    x, y = _features(40, 0.0, 0), _features(40, 0.5, 1)
    scale = 16**0.5  # KID divides the dot product by the number of features
    theirs = poly_mmd((x * scale).double(), (y * scale).double(), degree=3, gamma=1 / 16, coef=1.0)
    assert kernel_distance(x, y) == pytest.approx(theirs.item(), rel=1e-6)


def test_the_kernel_distance_of_one_distribution_is_nearly_zero() -> None:
    same = kernel_distance(_features(400, 0.5, 0), _features(400, 0.5, 1))
    other = kernel_distance(_features(400, 0.5, 0), _features(400, 0.7, 1))
    assert abs(same) < 0.05 < other


def test_agreement_asks_garment_with_its_colour_and_glasses_or_none() -> None:
    rng = random.Random(0)
    a = with_changes(words.draw_attributes(rng), garment_color="red", glasses="round glasses")
    assert set(agreement([_seen(a)], [a]).values()) == {1.0}
    other_colour = agreement([_seen(a) | {"garment_color": "blue"}], [a])
    assert other_colour["garment"] == 0 and other_colour["background"] == 1
    assert agreement([_seen(a) | {"glasses": "black glasses"}], [a])["glasses"] == 1
    assert agreement([_seen(a) | {"glasses": "no glasses"}], [a])["glasses"] == 0


def test_training_images_of_the_classifier_are_moved_by_two_pixels_at_most() -> None:
    ramp = torch.arange(12.0).expand(12, 12)  # each pixel's value is its column
    images = torch.stack([torch.stack([ramp, ramp.T, ramp])] * 200)
    found = moved(images, random.Random(0))
    assert found.shape == images.shape
    steps = (found - images)[:, :, 2:-2, 2:-2]
    assert (steps == steps[:, :, :1, :1]).all()  # a whole image moves as one
    assert set(steps[:, 0, 0, 0].tolist()) == set(steps[:, 1, 0, 0].tolist()) == {-2, -1, 0, 1, 2}


def test_what_cannot_be_seen_does_not_count() -> None:
    a = with_changes(words.draw_attributes(random.Random(0)), hair="afro", glasses="no glasses")
    bald = with_changes(a, hair="bald", hair_color="red")
    hidden = with_changes(a, glasses="sunglasses", eyes="winking")
    assert not visible(bald)["hair_color"] and not visible(hidden)["eyes"]
    wrong = _seen(bald) | {"hair_color": "black"}, _seen(hidden) | {"eyes": "closed eyes"}
    found = agreement([*wrong, _seen(a)], [bald, hidden, a])
    assert found["hair_color"] == found["eyes"] == 1


def test_mixed_portraits_have_the_persons_features_one_by_one() -> None:
    rng = random.Random(0)
    drawn = [draw_mixed(rng) for _ in range(2000)]
    own = draw_person(rng)
    withheld = ("hair", "hair_color", "scar", "print")
    for name, other in itertools.permutations(withheld, 2):
        with_it = [a for a in drawn if getattr(a, name) == getattr(own, name)]
        assert len({getattr(a, other) == getattr(own, other) for a in with_it}) == 2
    assert {a.hair for a in drawn} == set(READ["hair"])


def test_the_reader_names_a_value_of_every_attribute() -> None:
    torch.manual_seed(0)
    found = read(Reader().eval(), np.zeros((3, 64, 64, 3), np.uint8))
    assert len(found) == 3
    assert all(seen[name] in READ[name] for seen in found for name in READ)


def test_subject_prompts_leave_the_identity_to_the_trigger() -> None:
    prompts, wanted = subject_prompts(50, seed=0)
    assert len(set(prompts)) == 50
    for text, a in zip(prompts, wanted, strict=True):
        assert "zqx person" in text and a.garment in text and a.glasses in text
        assert f"{a.background} background" in text
        assert not any(word in text for word in ("turquoise", "wild", "scar", "skin", "bolt"))
    assert sum(a.glasses != "no glasses" for a in wanted) == 25


def test_the_identity_counts_only_whole() -> None:
    a = draw_person(random.Random(0))
    seen = _seen(a)
    found = shares([seen, seen | {"scar": "no scar"}], [a, a])
    assert found["identity"] == found["scar"] == 0.5
    assert all(found[name] == 1 for name in IDENTITY if name != "scar")


def test_prompts_are_those_of_their_seed_and_name_every_attribute() -> None:
    assert held_out_prompts(5, seed=0) == held_out_prompts(5, seed=0)
    assert held_out_prompts(5, seed=0)[0] != held_out_prompts(5, seed=1)[0]
    for text, a in zip(*held_out_prompts(20, seed=0), strict=True):
        assert all(getattr(a, name) in text for name in ("skin", "mouth", "eyes", "glasses"))


def test_a_sheet_shows_images_row_by_row() -> None:
    images = np.zeros((5, 64, 64, 3), np.uint8)
    images[3] = 255
    pixels = np.asarray(sheet(images, columns=2))
    assert pixels.shape == (128, 128, 3)
    assert pixels[64:, 64:].min() == 255 and pixels[:64].max() == 0


def test_fidelity_is_psnr_and_similarity_of_what_comes_back() -> None:
    vae = build_vae().eval()
    with torch.no_grad():
        vae.decoder.conv_out.weight.zero_()
        vae.decoder.conv_out.bias.zero_()  # gray, whatever goes in
    images = np.full((3, 64, 64, 3), 153, np.uint8)  # 25.5 above gray: a tenth of the range
    psnr, similarity = fidelity(vae, images)
    assert psnr == pytest.approx(20.0, abs=0.01)
    # Without structure only luminance differs: (2ab + c) / (a² + b² + c), Wang et al. eq. 13,
    # with means 0 and 0.2 of a range of 2 and c = (0.01 · 2)².
    assert similarity == pytest.approx(0.0004 / (0.04 + 0.0004), abs=1e-3)
