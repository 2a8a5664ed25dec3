"""Dropout of a LoRA: sd-scripts' formulas, with masks that runs share."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from lora_lab.network.dropout import PairedDropout
from train_setup import NETWORK

KEYS = ["a", "b", "a"]


def dropped(values: torch.Tensor, keys=tuple(KEYS), step: int = 1, name: str = "x", **rates: Any):
    """What is left of a layer's inner values while a batch is trained on."""
    dropout = PairedDropout(replace(NETWORK, **rates), seed=7)
    identity = nn.Identity()
    dropout.attach(identity, name)
    dropout.begin(step, list(keys))
    return identity(values)


def test_nothing_is_hooked_or_changed_at_rate_0():
    identity = nn.Identity()
    PairedDropout(NETWORK, 7).attach(identity, "x")
    assert not identity._forward_hooks


def test_nothing_is_dropped_outside_of_a_training_batch():
    dropout = PairedDropout(replace(NETWORK, dropout=0.9), seed=7)
    identity, values = nn.Identity(), torch.ones(2, 5, 4)
    dropout.attach(identity, "x")
    assert torch.equal(identity(values), values)
    dropout.begin(1, ["a", "b"])
    assert (identity(values) == 0).any()
    dropout.end()
    assert torch.equal(identity(values), values)


@pytest.mark.parametrize("shape", [(3, 77, 64), (3, 64), (3, 64, 6, 6)])
@pytest.mark.parametrize("kind", ["dropout", "rank_dropout"])
def test_kept_values_are_scaled_by_what_is_dropped(kind, shape):
    """0 or 1 / (1 - p), and of rank dropout the same at all places of an image."""
    kept = dropped(torch.ones(shape), **{kind: 0.25})
    assert kept.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert (kept == 0).float().mean() == pytest.approx(0.25, abs=0.12)
    if kind == "rank_dropout" and len(shape) > 2:
        places = kept.flatten(2) if len(shape) == 4 else kept.mT
        assert torch.equal(places, places[..., :1].expand_as(places))


@pytest.mark.parametrize("kind", ["dropout", "rank_dropout"])
def test_masks_depend_on_image_and_step_but_not_on_the_batch(kind):
    rates, values = {kind: 0.5}, torch.ones(3, 9, 16)
    whole = dropped(values, **rates)
    alone = dropped(values[:1], keys=("b",), **rates)
    assert torch.equal(whole[1:2], alone)
    assert not torch.equal(whole[0], whole[2])  # the second occurrence of an image in a step
    assert not torch.equal(whole, dropped(values, step=2, **rates))
    assert not torch.equal(whole, dropped(values, name="y", **rates))


@pytest.mark.parametrize("kind", ["dropout", "rank_dropout"])
def test_a_larger_rate_or_dim_shares_the_masks_of_a_smaller_one(kind):
    values = torch.ones(3, 9, 16)
    little, much = (dropped(values, **{kind: rate}) for rate in (0.2, 0.6))
    assert ((much != 0) <= (little != 0)).all()
    wide = dropped(torch.ones(3, 9, 32), **{kind: 0.6})
    assert torch.equal(wide[..., :16], much)


def test_module_dropout_leaves_out_a_whole_layer_as_often_as_asked():
    values = torch.ones(3, 9, 16)
    left = [dropped(values, step=step, module_dropout=0.3).mean().item() for step in range(1, 301)]
    assert set(left) == {0.0, 1.0}
    assert left.count(0.0) / 300 == pytest.approx(0.3, abs=0.08)


def test_rows_of_chunked_captions_belong_to_their_image():
    """Two chunks an image: 6 rows for 3 images, each with a mask of its own."""
    rows = dropped(torch.ones(6, 9, 16), dropout=0.5)
    alone = dropped(torch.ones(2, 9, 16), keys=("b",), dropout=0.5)
    assert torch.equal(rows[2:4], alone) and not torch.equal(rows[2], rows[3])
