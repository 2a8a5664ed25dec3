"""Several LoRAs beside one base give what each of them gives alone."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lora_lab.checkpoint.base_model import BaseModel, encode_prompt_hidden, load_base
from lora_lab.config import NetworkConfig
from lora_lab.network import LoRANetwork, flatten, inject_lora
from lora_lab.network.stacked import LoRAStack, Member
from train_setup import NETWORK

IMAGES = 3
CLIP_SKIP = 2
CONV = replace(NETWORK, conv_dim=3, conv_alpha=2.0)
STACKS = {
    "one": [NETWORK],
    "same": [NETWORK, NETWORK],
    "dims": [replace(NETWORK, dim=dim) for dim in (1, 8, 3)],
    "alphas": [NETWORK, replace(NETWORK, alpha=3.0), replace(NETWORK, rslora=True)],
    "convolutions": [CONV, replace(CONV, conv_dim=1), NETWORK],
    "parts": [
        replace(NETWORK, train_text_encoder=False),
        replace(NETWORK, train_unet=False),
        NETWORK,
    ],
    "dropouts": [
        replace(CONV, dropout=0.3, rank_dropout=0.2),
        NETWORK,
        replace(NETWORK, dim=2, module_dropout=0.5),
    ],
}


@pytest.fixture
def base(tiny_base) -> BaseModel:
    return load_base(str(tiny_base), parts=("unet", "text_encoder"))


def inputs(runs: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, timesteps and tokens of the batches of all runs."""
    draws = torch.Generator().manual_seed(0)
    rows = runs * IMAGES
    return (
        torch.randn(rows, 4, 8, 8, generator=draws),
        torch.randint(0, 1000, (rows,), generator=draws),
        torch.randint(0, 500, (rows, 77), generator=draws),
    )


def begin(network: LoRANetwork) -> None:
    """Ups that aren't 0, so that downs get a gradient, and masks of a first step."""
    for target, layer in network.layers.items():
        for leaf, parameter in layer.parameters().items():
            if leaf.startswith("lora_up"):
                draws = torch.Generator().manual_seed(len(target.name))
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=draws)
    network.dropout.begin(1, [f"image {index}" for index in range(IMAGES)])


def gradients(network: LoRANetwork) -> dict[str, Tensor]:
    return {
        f"{target.name}.{leaf}": parameter.grad.clone()
        for target, layer in network.layers.items()
        for leaf, parameter in layer.parameters().items()
        if parameter.grad is not None
    }


def alone(base: BaseModel, config: NetworkConfig, seed: int, rows: slice, runs: int):
    """Prediction and gradients of a run by itself."""
    network = inject_lora(base, config, seed)
    begin(network)
    latents, timesteps, tokens = (part[rows] for part in inputs(runs))
    hidden = encode_prompt_hidden(base.text_encoder, tokens, CLIP_SKIP)
    predicted = base.unet(latents, timesteps, hidden, return_dict=False)[0]
    predicted.pow(2).mean().backward()
    found = predicted.detach(), gradients(network)
    network.remove()
    return found


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("name", STACKS)
def test_a_stack_predicts_and_learns_what_each_lora_does_alone(base, name, flat):
    configs = STACKS[name]
    runs = len(configs)
    stack, networks = LoRAStack(base), []
    for seed, config in enumerate(configs):
        network = inject_lora(base, config, seed, stacked=True)
        begin(network)
        parts = network.trainable(CLIP_SKIP)
        trained = {k: [flatten(v)] if flat else v for k, v in parts.items() if v}
        stack.add(Member(network, CLIP_SKIP, lambda trained=trained: trained))
        networks.append(network)
    latents, timesteps, tokens = inputs(runs)
    with stack.runs("text_encoder", range(runs)):
        hidden = encode_prompt_hidden(base.text_encoder, tokens, CLIP_SKIP)
    with stack.runs("unet", range(runs)):
        predicted = base.unet(latents, timesteps, hidden, return_dict=False)[0]
    sum(part.pow(2).mean() for part in predicted.chunk(runs)).backward()
    stack.remove()
    for seed, config in enumerate(configs):
        rows = slice(seed * IMAGES, (seed + 1) * IMAGES)
        prediction, expected = alone(base, config, seed, rows, runs)
        torch.testing.assert_close(predicted[rows], prediction, rtol=1e-5, atol=1e-5)
        found = gradients(networks[seed])
        largest = max(gradient.abs().max() for gradient in expected.values())
        assert largest > 1e-4
        for key, gradient in expected.items():
            if key in found:
                assert (found[key] - gradient).abs().max() <= 2e-5 * largest, key
        missing = expected.keys() - found.keys()
        assert not any(expected[key].any() for key in missing)


def test_runs_can_be_left_out_and_be_in_any_order(base):
    """A stack goes on without a run that has failed."""
    configs = STACKS["dims"]
    stack = LoRAStack(base)
    for seed, config in enumerate(configs):
        network = inject_lora(base, config, seed, stacked=True)
        begin(network)
        stack.add(Member(network, CLIP_SKIP, lambda own=network: own.trainable(CLIP_SKIP)))
    latents, timesteps, tokens = inputs(3)
    hidden = encode_prompt_hidden(base.text_encoder, tokens, CLIP_SKIP)
    with stack.runs("unet", range(3)):
        every = base.unet(latents, timesteps, hidden, return_dict=False)[0].chunk(3)
    chosen = [2, 0]
    parts = [
        torch.cat([part.chunk(3)[run] for run in chosen]) for part in (latents, timesteps, hidden)
    ]
    with stack.runs("unet", chosen):
        some = base.unet(*parts, return_dict=False)[0].chunk(2)
    torch.testing.assert_close(some[0], every[2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(some[1], every[0], rtol=1e-5, atol=1e-5)


def test_the_base_is_as_before_outside_of_a_pass_and_after_the_stack(base):
    latents, timesteps, tokens = inputs(1)
    hidden = encode_prompt_hidden(base.text_encoder, tokens, CLIP_SKIP)
    before = base.unet(latents, timesteps, hidden, return_dict=False)[0]
    network = inject_lora(base, CONV, 0, stacked=True)
    begin(network)
    stack = LoRAStack(base)
    stack.add(Member(network, CLIP_SKIP, lambda: network.trainable(CLIP_SKIP)))
    with stack.runs("unet", [0]):
        inside = base.unet(latents, timesteps, hidden, return_dict=False)[0]
    assert not torch.equal(inside, before)
    assert torch.equal(base.unet(latents, timesteps, hidden, return_dict=False)[0], before)
    stack.remove()
    assert not any(module._forward_hooks for module in base.unet.modules())


@pytest.mark.parametrize("config", [NETWORK, CONV, replace(NETWORK, rslora=True)])
def test_a_lora_of_a_stack_begins_and_is_saved_as_one_alone(base, config):
    free = inject_lora(base, config, 5, stacked=True).tensors()
    network = inject_lora(base, config, 5)
    own = network.tensors()
    assert own.keys() == free.keys() and all(torch.equal(own[key], free[key]) for key in own)
