"""Layers before the first LoRA are computed once for rows that are equal, and give the same."""

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from lora_lab.network.equal_rows import equal_row_numbers, equal_rows_once, untouched_start

NUMBERS = [0, 1, 0, 1, 2]
"""Rows 0 and 2 are equal, and 1 and 3."""


@pytest.fixture
def unet() -> UNet2DConditionModel:
    """Like pocket and unlike Stable Diffusion, the first block has no attention."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    return unet.requires_grad_(False)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Latents, timesteps and hidden states of five rows."""
    draws = torch.Generator().manual_seed(0)
    noisy = torch.randn(3, 4, 8, 8, generator=draws)
    hidden = torch.randn(3, 5, 8, generator=draws)
    return noisy[NUMBERS], torch.tensor([10, 500, 900])[NUMBERS], hidden[NUMBERS]


def attention_layers(unet: UNet2DConditionModel) -> set[torch.nn.Module]:
    return {
        layer
        for path, layer in unet.named_modules()
        if "attentions" in path and isinstance(layer, torch.nn.Linear)
    }


@pytest.mark.parametrize(
    ("touched", "expected"),
    [
        ([], ["conv_in", "time_embedding", "down_blocks.0", "down_blocks.1.resnets.0"]),
        (
            ["down_blocks.0.downsamplers.0.conv"],
            ["conv_in", "time_embedding", "down_blocks.0.resnets.0"],
        ),
        (["down_blocks.0.resnets.0.time_emb_proj"], ["conv_in", "time_embedding"]),
        (["down_blocks.1.resnets.0.conv2"], ["conv_in", "time_embedding", "down_blocks.0"]),
        (["time_embedding.linear_2"], ["conv_in"]),
        (["conv_in"], []),
    ],
)
def test_the_start_ends_before_the_first_touched_layer(unet, touched, expected):
    layers = attention_layers(unet) | {unet.get_submodule(path) for path in touched}
    start = untouched_start(unet, layers)
    assert start == [unet.get_submodule(path) for path in expected]


def test_equal_rows_give_what_they_give_one_by_one(unet):
    noisy, timesteps, hidden = inputs()
    expected = unet(noisy, timesteps, hidden, return_dict=False)[0]
    seen = {}

    def note(name):
        def count(layer, given, output):
            seen[name] = len(given[0])

        return count

    hooks = [  # within the blocks whose calls are changed
        unet.down_blocks[0].resnets[0].conv1.register_forward_hook(note("first block")),
        unet.time_embedding.linear_1.register_forward_hook(note("time")),
        unet.mid_block.resnets[0].conv1.register_forward_hook(note("middle")),
    ]
    with equal_rows_once(unet, attention_layers(unet), noisy, timesteps):
        found = unet(noisy, timesteps, hidden, return_dict=False)[0]
    for hook in hooks:
        hook.remove()
    assert seen == {"first block": 3, "time": 3, "middle": 5}
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert not any("forward" in module.__dict__ for module in unet.modules())


def test_the_layers_are_as_before_after_an_error(unet):
    with pytest.raises(OSError), equal_rows_once(unet, (), *inputs()[:2]):
        raise OSError("no space left on device")
    assert not any("forward" in module.__dict__ for module in unet.modules())


def test_rows_are_equal_where_all_their_bytes_are():
    noisy, timesteps, hidden = inputs()
    assert equal_row_numbers((timesteps, noisy)) == NUMBERS
    assert equal_row_numbers((hidden.bfloat16(),)) == NUMBERS
    later = timesteps.clone()
    later[2] += 1
    assert equal_row_numbers((later, noisy)) == [0, 1, 2, 1, 3]
    other = noisy.clone()
    other[3, -1, -1, -1] += 1e-6
    assert equal_row_numbers((timesteps, other)) == [0, 1, 0, 2, 3]
    assert equal_row_numbers((noisy.to("meta"),)) == [0, 1, 2, 3, 4]
