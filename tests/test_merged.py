"""A layer that multiplies by W + ΔW trains as the LoRA beside W does, where that is less work."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.mapping import inject_adapter_in_model
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lora_lab.checkpoint.base_model import load_base
from lora_lab.network import inject_lora, merged
from lora_lab.network.layers import ADAPTER, PeftLayer
from train_setup import NETWORK

TOLERANCE = 1e-5
"""Of the largest entry, between gradients of the two ways."""
LAYERS: dict[str, tuple[nn.Module, tuple[int, ...], bool]] = {
    "linear, rank a third of the channels": (nn.Linear(48, 48), (3, 64, 48), True),
    "linear, few rows": (nn.Linear(48, 48), (1, 4, 48), False),
    "linear, many channels": (nn.Linear(400, 400), (3, 64, 400), False),
    "convolution of 1x1": (nn.Conv2d(48, 32, 1), (2, 48, 8, 8), True),
    "convolution of 3x3 with a stride": (nn.Conv2d(8, 16, 3, 2, 1), (2, 8, 15, 15), True),
}
RANK = 16


def peft_layer(layer: nn.Module, rank: int) -> Any:
    """PEFT's layer in the place of a layer, with numbers of its own."""
    model: Any = nn.Sequential(layer)
    model.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=8, target_modules=["0"]), model, ADAPTER)
    draws = torch.Generator().manual_seed(0)
    for one in (model[0].lora_A, model[0].lora_B):
        weight = one[ADAPTER].weight
        weight.data = 0.1 * torch.randn(weight.shape, generator=draws)
    return model[0]


def gradients(layer: Any, shape: tuple[int, ...]) -> tuple[list[Tensor], int]:
    """Output and gradients (of input, down and up) of a step, and its operations."""
    draws = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=draws).requires_grad_()
    leaves = [x, layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight]
    for leaf in leaves:
        leaf.grad = None
    with FlopCounterMode(display=False) as counter:
        output = layer(x)
        weights = torch.randn(output.shape, generator=draws)
        (output * weights).sum().backward()
    found = [leaf.grad for leaf in leaves if leaf.grad is not None]
    return [output.detach(), *found], counter.get_total_flops()


def assert_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        assert other.any() and (one - other).abs().max() <= TOLERANCE * other.abs().max()


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_pefts_and_the_choice_is_the_one_with_fewer_operations(name, monkeypatch):
    layer, shape, pays = LAYERS[name]
    theirs, beside = gradients(peft_layer(layer, RANK), shape)
    ours = peft_layer(layer, RANK)
    merged.merge_where_it_pays(ours)
    chosen = gradients(ours, shape)[1]
    monkeypatch.setattr(merged, "merging_pays", lambda *sizes: True)
    found, together = gradients(ours, shape)
    assert_equal(found, theirs)
    assert (together < beside) == pays
    assert chosen == (together if pays else beside)


@pytest.mark.parametrize("rank", [1, 8, 32])
def test_low_ranks_stay_beside_the_layers_of_stable_diffusion(rank):
    assert not any(
        merged.merging_pays(rows, rank, wide, width)
        for rows in (77, 3 * 9216, 10**9)
        for wide, width in ((320, 320), (640, 640), (1280, 1280), (768, 320), (1280, 10240))
    )


@pytest.mark.parametrize("of_input", [torch.bfloat16, torch.float32])
def test_in_16_bits_the_lora_stays_beside_the_layer(of_input, monkeypatch):
    """As bf16, or under autocast: W + ΔW in 16 bits would round ΔW away."""
    asked: list[tuple[int, ...]] = []
    monkeypatch.setattr(merged, "merging_pays", lambda *sizes: bool(asked.append(sizes)) or True)
    layer = peft_layer(nn.Linear(48, 48), RANK)
    merged.merge_where_it_pays(layer)
    with torch.autocast("cpu", torch.bfloat16, enabled=of_input == torch.float32):
        layer.to(of_input)(torch.randn(3, 64, 48, dtype=of_input))
    assert not asked
    layer.float()(torch.randn(3, 64, 48))
    assert asked == [(192, RANK, 48, 48)]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_network_merges_unless_it_has_dropout(dropout, tiny_base, monkeypatch):
    base = load_base(str(tiny_base), parts=("unet", "text_encoder"))
    asked = []
    monkeypatch.setattr(merged, "merging_pays", lambda *sizes: bool(asked.append(sizes)))
    with inject_lora(base, replace(NETWORK, dropout=dropout), 0) as network:
        assert all(isinstance(layer, PeftLayer) for layer in network.layers.values())
        hidden = torch.zeros(1, 77, base.unet.config.cross_attention_dim)
        latents = torch.zeros(1, base.unet.config.in_channels, 8, 8)
        base.unet(latents, torch.tensor([1]), hidden)
        unet_layers = [target for target in network.layers if target.part == "unet"]
    assert len(asked) == (0 if dropout else len(unet_layers))
