"""The change of weight that each layout stands for, held against LyCORIS and against numbers."""

import pytest
import torch
from torch import Tensor, nn

from lora_lab.errors import LabError
from lora_lab.lora_file.layouts import decompose, layer_changes

NAME = "lora_unet_mid_block_attentions_0_proj_in"


def change_of(**tensors: Tensor):
    """One layer from its tensors; `__` in a name stands for the dot."""
    named = {f"{NAME}.{leaf.replace('__', '.')}": tensor for leaf, tensor in tensors.items()}
    return layer_changes(named, "file")[NAME]


def test_lora_is_up_times_down_times_alpha_over_dim():
    down, up = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]])
    change = change_of(lora_down__weight=down, lora_up__weight=up, alpha=torch.tensor(0.5))
    merged = change.merged(torch.ones(2, 2), 2.0)
    assert torch.equal(merged, torch.tensor([[4.0, 7.0], [5.0, 9.0]]))


def test_a_missing_alpha_counts_as_dim():
    change = change_of(lora_down__weight=torch.ones(2, 3), lora_up__weight=torch.ones(4, 2))
    assert (change.dim, change.alpha, change.scale) == (2, 2.0, 1.0)


@pytest.mark.parametrize("tucker", [False, True])
@pytest.mark.parametrize("kind", ["loha", "lokr", "locon"])
@pytest.mark.parametrize("layer", [nn.Linear(24, 36), nn.Conv2d(24, 36, 3, padding=1)])
def test_the_change_is_that_of_lycoris(kind, layer, tucker):
    """LyCORIS' own module answers for the layer with random tensors; fp32, 1e-4."""
    pytest.importorskip("lycoris")
    from lycoris.modules.locon import LoConModule
    from lycoris.modules.loha import LohaModule
    from lycoris.modules.lokr import LokrModule

    classes = {"loha": LohaModule, "lokr": LokrModule, "locon": LoConModule}
    module = classes[kind](NAME, layer, lora_dim=2, alpha=3.0, use_tucker=tucker)
    torch.manual_seed(0)
    for parameter in nn.Module.parameters(module):
        nn.init.normal_(parameter, std=0.5)
    inputs = torch.randn(2, 24, 5, 5) if isinstance(layer, nn.Conv2d) else torch.randn(2, 24)
    with torch.no_grad():
        expected = module.forward(inputs)
        tensors = {f"{NAME}.{leaf}": tensor for leaf, tensor in module.state_dict().items()}
        weight = layer_changes(tensors, "file")[NAME].merged(layer.weight, 1.0)
        if isinstance(layer, nn.Conv2d):
            ours = nn.functional.conv2d(inputs, weight, layer.bias, padding=1)
        else:
            ours = nn.functional.linear(inputs, weight, layer.bias)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    assert (expected - layer(inputs)).abs().max() > 0.1


@pytest.mark.parametrize("decompose_both", [False, True])
def test_both_factors_of_lokr_may_be_of_two_matrices(decompose_both):
    pytest.importorskip("lycoris")
    from lycoris.modules.lokr import LokrModule

    layer = nn.Linear(64, 96)
    module = LokrModule(NAME, layer, lora_dim=1, alpha=2.0, decompose_both=decompose_both)
    torch.manual_seed(1)
    for parameter in nn.Module.parameters(module):
        nn.init.normal_(parameter)
    tensors = {f"{NAME}.{leaf}": tensor for leaf, tensor in module.state_dict().items()}
    assert (f"{NAME}.lokr_w1_a" in tensors) == decompose_both
    with torch.no_grad():
        merged = layer_changes(tensors, "file")[NAME].merged(layer.weight, 1.0)
        expected = layer.weight + module.get_weight((96, 64))
    torch.testing.assert_close(merged, expected, rtol=1e-5, atol=1e-5)


def test_dora_gives_each_row_its_magnitude():
    """arXiv 2402.09353, eq. 5, with numbers: rows (3, 4) and (0, 2) to magnitudes 10 and 1."""
    weight = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    rows = decompose(weight, torch.tensor([[10.0], [1.0]]))
    assert torch.allclose(rows, torch.tensor([[6.0, 8.0], [0.0, 1.0]]))
    columns = decompose(weight, torch.tensor([[6.0, 20.0]]))
    assert torch.allclose(columns, weight * torch.tensor([2.0, 20.0 / 20.0**0.5]))


@pytest.mark.parametrize("shape", [(2, 1), (1, 3)])
def test_dora_is_merged_as_lycoris_merges_it(shape):
    pytest.importorskip("lycoris")
    from lycoris.functional.general import weight_decompose

    torch.manual_seed(0)
    weight, down, up = torch.randn(2, 3), torch.randn(1, 3), torch.randn(2, 1)
    scale = torch.rand(shape) + 0.5
    change = change_of(
        lora_down__weight=down, lora_up__weight=up, alpha=torch.tensor(1.0), dora_scale=scale
    )
    for strength in (1.0, 0.5):
        target = weight_decompose(weight + up @ down, scale, 1, shape[0] == 2)
        expected = weight + strength * (target - weight)
        torch.testing.assert_close(change.merged(weight, strength), expected)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha", "a LoRA for SDXL"),
        ("lora_unet_double_blocks_0_img_attn_proj.alpha", "a LoRA for Flux"),
        ("unet.down_blocks.0.attentions.0.proj_in.lora_A.weight", "diffusers' own layout"),
        ("emb_params", "a textual inversion"),
        ("model.diffusion_model.out.2.weight", "a whole checkpoint"),
        ("something.else", "does not belong to a LoRA"),
        (f"{NAME}.diff_b", r"diff_b does not belong to a layer of LoRA, DoRA, LoHa or LoKr"),
        (f"{NAME}.hada_w1_a", r"mixes .*hada_w1_a and .*lora_up\.weight in one layer"),
    ],
)
def test_other_files_are_named_as_what_they_are(key, message):
    tensors = {f"{NAME}.lora_down.weight": torch.ones(1, 2), key: torch.ones(1)}
    tensors[f"{NAME}.lora_up.weight"] = torch.ones(2, 1)
    with pytest.raises(LabError, match=message) as error:
        layer_changes(tensors, "file.safetensors")
    assert key.split(".")[-1] in str(error.value)


@pytest.mark.parametrize(
    ("leaf", "missing"),
    [
        ("lora_up.weight", "lora_down.weight"),
        ("hada_w1_a", "hada_w1_b"),
        ("lokr_w1", "lokr_w2_a"),
        ("alpha", "lora_down.weight"),
    ],
)
def test_half_a_layer_is_refused_with_the_missing_key(leaf, missing):
    with pytest.raises(LabError, match=f"lacks key {NAME}.{missing}"):
        layer_changes({f"{NAME}.{leaf}": torch.ones(2, 2)}, "file")


@pytest.mark.parametrize(
    ("leaf", "shape"),
    [
        *(("lora_down.weight", ()), ("lora_down.weight", (4,)), ("lora_down.weight", (0, 4))),
        *(("lora_up.weight", (4, 0)), ("alpha", (2,)), ("alpha", (0,)), ("dora_scale", ())),
    ],
)
def test_a_tensor_that_no_layer_can_have_is_refused_with_its_key(leaf, shape):
    tensors = {f"{NAME}.lora_down.weight": torch.ones(2, 4), f"{NAME}.alpha": torch.tensor(1.0)}
    tensors |= {f"{NAME}.lora_up.weight": torch.ones(4, 2), f"{NAME}.{leaf}": torch.ones(shape)}
    with pytest.raises(LabError, match=f"file: key {NAME}.{leaf} must hold"):
        layer_changes(tensors, "file")


def test_numbers_that_are_not_real_are_refused():
    tensors = {f"{NAME}.lora_down.weight": torch.ones(2, 4, dtype=torch.complex64)}
    tensors[f"{NAME}.lora_up.weight"] = torch.ones(4, 2)
    with pytest.raises(LabError, match="must hold real numbers"):
        layer_changes(tensors, "file")
