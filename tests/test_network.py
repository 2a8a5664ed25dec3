"""Layers of a LoRA: names, sizes, first numbers; and that a file gives what was trained."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from lora_lab.checkpoint.base_model import BaseModel, load_base, read_config
from lora_lab.checkpoint.families.sd15 import SD15
from lora_lab.config import NetworkConfig
from lora_lab.errors import ConfigError
from lora_lab.lora_file.merge import LoRAMerger
from lora_lab.network import LoRANetwork, inject_lora, network_metadata
from lora_lab.network.targets import file_alpha, find_targets
from train_setup import NETWORK

CONV = replace(NETWORK, conv_dim=3, conv_alpha=2.0)
KINDS = {
    "lora": NETWORK,
    "lora_conv": CONV,
    "rslora": replace(CONV, rslora=True, dim=3, alpha=0.7),
    "dora": replace(CONV, dora=True, alpha=3.0),
    "loha": replace(CONV, name="loha", alpha=3.0),
    "lokr": replace(CONV, name="lokr", dim=1, conv_dim=1),
    "lokr of whole factors": replace(CONV, name="lokr", dim=64, conv_dim=64, factor=4),
}


@pytest.fixture(scope="module")
def sd15() -> BaseModel:
    """UNet and text encoder of Stable Diffusion 1.5, without weights."""
    parts = {}
    for part in ("unet", "text_encoder"):
        with torch.device("meta"):
            parts[part] = SD15.build[part](read_config(SD15.configs / part / "config.json"))
    return cast(BaseModel, SimpleNamespace(**parts, family=SD15))


@pytest.fixture
def base(tiny_base) -> BaseModel:
    return load_base(str(tiny_base), parts=("unet", "text_encoder"))


def attention_names() -> set[str]:
    """The 192 names of FORMATS that sd-scripts writes for Stable Diffusion 1.5, spelled out."""
    blocks = [f"down_blocks_{b}_attentions_{a}" for b in (0, 1, 2) for a in (0, 1)]
    blocks += ["mid_block_attentions_0"]
    blocks += [f"up_blocks_{b}_attentions_{a}" for b in (1, 2, 3) for a in (0, 1, 2)]
    inner = [f"attn{n}_to_{x}" for n in (1, 2) for x in ("q", "k", "v", "out_0")]
    inner = [f"transformer_blocks_0_{name}" for name in [*inner, "ff_net_0_proj", "ff_net_2"]]
    return {f"lora_unet_{b}_{name}" for b in blocks for name in ["proj_in", "proj_out", *inner]}


def convolution_names() -> set[str]:
    """What LoCon adds: residual blocks, their shortcuts where widths change, and samplers."""
    resnets = [f"down_blocks_{b}_resnets_{r}" for b in range(4) for r in (0, 1)]
    resnets += ["mid_block_resnets_0", "mid_block_resnets_1"]
    resnets += [f"up_blocks_{b}_resnets_{r}" for b in range(4) for r in range(3)]
    names = {f"{r}_{layer}" for r in resnets for layer in ("conv1", "conv2", "time_emb_proj")}
    shortcuts = ["down_blocks_1_resnets_0", "down_blocks_2_resnets_0"]
    shortcuts += [f"up_blocks_{b}_resnets_{r}" for b in range(4) for r in range(3)]
    names |= {f"{r}_conv_shortcut" for r in shortcuts}
    names |= {f"down_blocks_{b}_downsamplers_0_conv" for b in range(3)}
    names |= {f"up_blocks_{b}_upsamplers_0_conv" for b in range(3)}
    return {f"lora_unet_{name}" for name in names}


def text_names() -> set[str]:
    layers = [*(f"self_attn_{x}_proj" for x in ("q", "k", "v", "out")), "mlp_fc1", "mlp_fc2"]
    return {f"lora_te_text_model_encoder_layers_{n}_{name}" for n in range(12) for name in layers}


def test_the_192_and_72_layers_are_those_of_sd_scripts(sd15):
    found = [target.name for target in find_targets(sd15, NETWORK, {})]
    assert len(found) == 264 and set(found) == attention_names() | text_names()


def test_convolutions_bring_the_unet_to_278_layers_with_sizes_of_their_own(sd15):
    config = replace(CONV, dim=16, alpha=4.0, conv_dim=8, conv_alpha=2.0, train_text_encoder=False)
    targets = {target.name: target for target in find_targets(sd15, config, {})}
    assert len(targets) == 278 and targets.keys() == attention_names() | convolution_names()
    for name, target in targets.items():
        is_3x3 = name.endswith(("conv1", "conv2", "samplers_0_conv"))
        assert (target.dim, target.alpha) == ((8, 2.0) if is_3x3 else (16, 4.0)), name


@pytest.mark.parametrize(
    ("part", "names"), [("unet", attention_names), ("text_encoder", text_names)]
)
def test_each_part_can_be_trained_alone(sd15, part, names):
    chosen: Any = {f"train_{p}": p == part for p in ("unet", "text_encoder")}
    assert {t.name for t in find_targets(sd15, replace(NETWORK, **chosen), {})} == names()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (replace(NETWORK, dim=1281), r"network\.dim must be <= 1280 .* got 1281: .* largest layer"),
        (replace(CONV, conv_dim=1300), r"network\.conv_dim must be <= 1280 .* got 1300: .*conv"),
    ],
)
def test_a_dim_larger_than_every_layer_is_refused_with_the_largest(sd15, config, message):
    with pytest.raises(ConfigError, match=message):
        find_targets(sd15, config, {})


def test_a_dim_larger_than_some_layers_is_told(sd15, caplog):
    """The guide trains 512: layers of 320 channels can't use it, those of 640 and more can."""
    find_targets(sd15, replace(NETWORK, dim=320), {})
    assert not caplog.records
    find_targets(sd15, replace(NETWORK, dim=512), {})
    (record,) = caplog.records
    assert "network.dim=512 is above the smaller side of" in record.getMessage()
    assert "of 264 layers" in record.getMessage() and "has 320" in record.getMessage()


def trained(base: BaseModel, config: NetworkConfig) -> LoRANetwork:
    """A network with random numbers in every trained tensor."""
    if config.name != "lora" or config.dora:
        pytest.importorskip("lycoris")
    network = inject_lora(base, config, seed=1)
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in network.layers.values():
            for leaf, parameter in layer.parameters().items():
                noise = torch.randn(parameter.shape, generator=draws)
                if leaf == "dora_scale":
                    parameter.mul_(1 + 0.1 * noise)
                else:
                    parameter.copy_(0.2 * noise)
    return network


def outputs(base: BaseModel) -> tuple[torch.Tensor, torch.Tensor]:
    """What text encoder and UNet make of fixed inputs."""
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 500, (1, 77), generator=draws)
    latents = torch.randn(1, 4, 8, 8, generator=draws)
    with torch.no_grad():
        states = base.text_encoder(input_ids=ids).last_hidden_state
        return states, base.unet(latents, 7, states, return_dict=False)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_merged_gives_what_the_trained_layers_gave(base, kind):
    """Training's forward is PEFT's or LyCORIS', the file's is our own formula; fp32, 2e-4."""
    plain = outputs(base)
    network = trained(base, KINDS[kind])
    expected = outputs(base)
    tensors = network.tensors()
    network.remove()
    assert all(torch.equal(a, b) for a, b in zip(outputs(base), plain, strict=True))
    LoRAMerger(base).apply([(tensors, 1.0)])
    for ours, theirs, before in zip(outputs(base), expected, plain, strict=True):
        assert (theirs - before).abs().max() > 0.01
        torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_network_begins_as_no_change(base, kind):
    if KINDS[kind].name != "lora" or KINDS[kind].dora:
        pytest.importorskip("lycoris")
    plain = outputs(base)
    network = inject_lora(base, KINDS[kind], seed=1)
    for ours, before in zip(outputs(base), plain, strict=True):
        torch.testing.assert_close(ours, before, rtol=1e-5, atol=1e-5)
    assert all(p.requires_grad for ps in network.trainable(1).values() for p in ps)


@pytest.mark.parametrize("kind", ["lora_conv", "loha", "lokr"])
def test_a_larger_dim_begins_with_the_numbers_of_a_smaller_one(base, kind):
    """Rank by rank; LoKr's w2_a scales with 1/√dim, so it is compared after that is undone."""
    if kind != "lora_conv":
        pytest.importorskip("lycoris")
    firsts = []
    for dim in (1, 2):
        config = replace(KINDS[kind], dim=dim, conv_dim=dim)
        network = inject_lora(base, config, seed=5)
        firsts.append(network.tensors())
        network.remove()
    small, large = firsts
    compared = 0
    for key, tensor in small.items():
        if key.endswith(("lora_down.weight", "hada_w1_b", "hada_w2_b")):
            assert torch.equal(tensor, large[key][:1])
        elif key.endswith("hada_w1_a"):
            assert torch.equal(tensor, large[key][:, :1])
        elif key.endswith("lokr_w2_a") and key in large:  # else dim 2 made the factor whole
            torch.testing.assert_close(tensor, large[key][:, :1] * math.sqrt(2))
        else:
            continue
        assert tensor.any()
        compared += 1
    assert compared > 50


def test_lora_begins_kaiming_uniform_with_zero_up(base):
    tensors = inject_lora(base, replace(NETWORK, dim=16), seed=0).tensors()
    for key, tensor in tensors.items():
        if key.endswith("lora_up.weight"):
            assert not tensor.any()
        if key.endswith("lora_down.weight"):
            bound = 1 / math.sqrt(tensor[0].numel())
            assert 0.9 * bound < tensor.abs().max() <= bound


def test_rslora_folds_the_root_of_dim_into_alpha():
    """Alpha / √dim (arXiv 2312.03732) is what the file's alpha / dim gives, in 32 bits."""
    for alpha, dim in ((1.0, 192), (0.7, 3), (16.0, 64)):
        folded = file_alpha(alpha, dim, rslora=True)
        assert folded / dim == pytest.approx(alpha / math.sqrt(dim), rel=1e-7)
        assert torch.tensor(folded).item() == folded
    assert file_alpha(1.0, 192, rslora=False) == 1.0


def test_rslora_trains_with_the_factor_of_the_file(base):
    network = inject_lora(base, KINDS["rslora"], seed=0)
    for target, layer in network.layers.items():
        saved = float(layer.file_tensors()["alpha"]) / target.dim
        assert layer.module.scaling["default"] == saved


def test_dora_begins_with_the_norms_of_the_columns(base):
    """(1, in[, 1, 1]): the shape that A1111, ComfyUI, Forge and LyCORIS read alike."""
    pytest.importorskip("lycoris")
    config = replace(CONV, dora=True)
    network = inject_lora(base, config, seed=0)
    for target, layer in network.layers.items():
        found = layer.file_tensors()["dora_scale"]
        weight = target.layer.weight
        columns = weight.transpose(0, 1).flatten(1).norm(dim=1)
        assert found.shape == (1, len(columns), *[1] * (weight.ndim - 2))
        torch.testing.assert_close(found.flatten(), columns)


def test_dora_trains_its_norms(base):
    pytest.importorskip("lycoris")
    network = inject_lora(base, replace(NETWORK, dora=True), seed=0)
    parts = network.trainable(1)
    assert len(parts["unet"]) == 3 * len([t for t in network.layers if t.part == "unet"])


@pytest.mark.parametrize(
    ("kind", "module", "dim", "alpha", "arguments"),
    [
        ("lora", "networks.lora", 4, 1.0, {}),
        ("lora_conv", "networks.lora", 4, 1.0, {"conv_dim": 3, "conv_alpha": 2.0}),
        ("rslora", "networks.lora", 3, file_alpha(0.7, 3, True), {"rs_lora": True}),
        ("dora", "lycoris.kohya", 4, 3.0, {"dora_wd": True, "wd_on_output": False, "algo": "lora"}),
        ("loha", "lycoris.kohya", 4, 3.0, {"algo": "loha"}),
        ("lokr", "lycoris.kohya", 1, 1.0, {"algo": "lokr", "factor": -1}),
    ],
)
def test_metadata_tell_what_the_file_holds(base, kind, module, dim, alpha, arguments):
    if KINDS[kind].name != "lora" or KINDS[kind].dora:
        pytest.importorskip("lycoris")
    found = network_metadata(inject_lora(base, KINDS[kind], seed=0))
    assert found["ss_network_module"] == module
    assert (found["ss_network_dim"], found["ss_network_alpha"]) == (dim, alpha)
    told = found.get("ss_network_args", {})
    assert {key: told.get(key) for key in arguments} == {k: str(v) for k, v in arguments.items()}
