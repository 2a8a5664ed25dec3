"""A LoRA file to start from, LoRAs merged into the base, and training of every kind of network."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lora_files import one_module_lora, random_lora
from lora_lab.checkpoint.base_model import BaseModel, load_base
from lora_lab.config import MergeConfig
from lora_lab.data.inputs import SharedInputs
from lora_lab.errors import LabError
from lora_lab.lora_file import write_lora
from lora_lab.lora_file.merge import named_layers, with_merged
from lora_lab.network import inject_lora
from lora_lab.run_folder.identity import config_key
from train import train
from train_setup import NETWORK, train_config


@pytest.fixture
def base(tiny_base) -> BaseModel:
    return load_base(str(tiny_base), parts=("unet", "text_encoder"))


@pytest.fixture
def lora(base, tmp_path) -> Path:
    """Random numbers, dim 3 and alpha 2, in every linear layer."""
    write_lora(tmp_path / "start.safetensors", random_lora(base, dim=3, alpha=2.0), {})
    return tmp_path / "start.safetensors"


def test_training_starts_from_the_tensors_of_a_file(base, lora):
    config = replace(NETWORK, dim=3, alpha=2.0, weights=str(lora))
    tensors, file = inject_lora(base, config, seed=0).tensors(), load_file(lora)
    assert tensors.keys() == file.keys()
    assert all(torch.equal(tensors[key], file[key]) for key in file)


def test_layers_and_dims_may_come_from_the_file(base, tmp_path):
    """Mixed dims, a few layers: what LoRA resizers write."""
    tensors = {}
    for dim, (name, layer) in enumerate(list(named_layers(base).items())[4:9], start=2):
        out, inner, *kernel = layer.weight.shape
        tensors[f"{name}.lora_down.weight"] = torch.randn(dim, inner, *kernel)
        tensors[f"{name}.lora_up.weight"] = torch.randn(out, dim, *[1] * len(kernel))
        tensors[f"{name}.alpha"] = torch.tensor(dim / 2)
    write_lora(tmp_path / "mixed.safetensors", tensors, {})
    config = replace(NETWORK, weights=str(tmp_path / "mixed.safetensors"), dim_from_weights=True)
    network = inject_lora(base, config, seed=0)
    trained = {target.name for target in network.layers}
    chosen = {key.split(".")[0] for key in tensors}
    assert trained and trained <= chosen
    for target, layer in network.layers.items():
        for leaf, tensor in layer.file_tensors().items():
            assert torch.equal(tensor, tensors[f"{target.name}.{leaf}"])


def test_layers_that_a_file_lacks_begin_afresh(base, tmp_path):
    tensors = one_module_lora("unet", "mid_block.attentions.0.proj_in", (32, 32), dim=4)
    write_lora(tmp_path / "one.safetensors", tensors, {})
    config = replace(NETWORK, weights=str(tmp_path / "one.safetensors"))
    found = inject_lora(base, config, seed=0).tensors()
    fresh = inject_lora(load_again(base), NETWORK, seed=0).tensors()
    changed = {key for key in fresh if not torch.equal(found[key].squeeze(), fresh[key].squeeze())}
    assert changed == {key for key in tensors if not key.endswith("alpha")}


def load_again(base: BaseModel) -> BaseModel:
    return load_base(str(base.path), parts=("unet", "text_encoder"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 4}, r"has dim 3 and alpha 2, these settings have dim 4 and alpha 2"),
        ({"alpha": 1.0}, r"dim 3 and alpha 1: set network\.dim and network\.alpha"),
        ({"train_text_encoder": False}, r"lora_te_.*which these settings don't train"),
        ({"name": "loha"}, "is a layer of lora, but network=loha is trained"),
        ({"dora": True}, r"lacks a dora_scale, but network\.dora is true"),
    ],
)
def test_a_file_that_does_not_match_the_settings_is_refused(base, lora, changes, message):
    config = replace(NETWORK, dim=3, alpha=2.0, weights=str(lora))
    with pytest.raises(LabError, match=message):
        inject_lora(base, replace(config, **changes), seed=0)


def test_a_file_for_another_base_is_refused_with_the_shapes(base, tmp_path):
    tensors = one_module_lora("unet", "mid_block.attentions.0.proj_in", (640, 320), dim=4)
    write_lora(tmp_path / "foreign.safetensors", tensors, {})
    config = replace(NETWORK, weights=str(tmp_path / "foreign.safetensors"))
    with pytest.raises(
        LabError, match=r"proj_in .*shape \(640, 320\), the base has \(32, 32, 1, 1\)"
    ):
        inject_lora(base, config, seed=0)
    assert not [name for name, _ in base.unet.named_modules() if "lora" in name]


def test_the_file_and_not_its_name_is_part_of_the_key_of_a_run(tiny_base, tiny_person, lora):
    config = train_config(tiny_base, tiny_person, network__weights=str(lora))
    key = config_key(config)
    moved = lora.rename(lora.with_name("moved.safetensors"))
    same = train_config(tiny_base, tiny_person, network__weights=str(moved))
    assert config_key(same) == key != config_key(train_config(tiny_base, tiny_person))
    write_lora(moved, {k: t + 1 for k, t in load_file(moved).items()}, {})
    assert config_key(same) != key


def test_a_merged_base_has_both_loras_and_a_fingerprint_of_its_own(tiny_base, base, tmp_path):
    """Text encoder included; the sum of both changes, each with its weight, computed by hand."""
    one, two = random_lora(base, seed=1), random_lora(base, seed=2)
    for name, tensors in (("one", one), ("two", two)):
        write_lora(tmp_path / f"{name}.safetensors", tensors, {})
    merge = [
        MergeConfig(str(tmp_path / "one.safetensors"), 0.5),
        MergeConfig(str(tmp_path / "two.safetensors"), -1.0),
    ]
    merged = with_merged(load_base(str(tiny_base)), merge)
    before, after = named_layers(base), named_layers(merged)
    for name in (
        "lora_te_text_model_encoder_layers_1_mlp_fc1",
        "lora_unet_mid_block_attentions_0_proj_in",
    ):
        expected = before[name].weight.clone()
        for tensors, weight in ((one, 0.5), (two, -1.0)):
            down, up = (tensors[f"{name}.lora_{x}.weight"].flatten(1) for x in ("down", "up"))
            expected += (weight * (up @ down) / 2).reshape(expected.shape)
        torch.testing.assert_close(after[name].weight, expected)
    assert merged.fingerprint != base.fingerprint
    again = with_merged(load_base(str(tiny_base)), merge)
    other = with_merged(load_base(str(tiny_base)), [replace(merge[0], weight=0.6), merge[1]])
    assert again.fingerprint == merged.fingerprint != other.fingerprint
    assert with_merged(base, []).fingerprint == base.fingerprint


def test_a_merge_for_another_base_is_refused_with_its_file(tiny_base, tmp_path):
    tensors = one_module_lora("unet", "mid_block.attentions.0.proj_in", (640, 320))
    write_lora(tmp_path / "foreign.safetensors", tensors, {})
    merge = [MergeConfig(str(tmp_path / "foreign.safetensors"), 1.0)]
    with pytest.raises(LabError, match=r"model\.merge: .*foreign\.safetensors: .*\(640, 320\)"):
        with_merged(load_base(str(tiny_base)), merge)


def test_runs_on_a_merged_base_and_on_a_plain_one_share_nothing(tiny_base, lora):
    shared, config = SharedInputs(), train_config(tiny_base, tiny_base).model
    plain = shared.base(config)
    merged = shared.base(replace(config, merge=[MergeConfig(str(lora), 1.0)]))
    assert shared.base(config) is plain and plain.fingerprint != merged.fingerprint


NETWORKS = {
    "conv": {"conv_dim": 2, "conv_alpha": 1.0},
    "dropout": {"dropout": 0.2, "rank_dropout": 0.2, "module_dropout": 0.2},
    "dora": {"dora": True},
    "loha": {"name": "loha"},
    "lokr": {"name": "lokr", "dim": 1},
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_killed_and_resumed_gives_the_same_bytes(
    kind, tmp_path, tiny_base, tiny_person, monkeypatch
):
    """Every kind of network trains, moves each tensor, and goes on exactly where it was."""
    from lora_lab.training.callbacks import LoRAExport

    if kind in ("dora", "loha", "lokr"):
        pytest.importorskip("lycoris")
    changes = {f"network__{key}": value for key, value in NETWORKS[kind].items()}
    config = train_config(tiny_base, tiny_person, callbacks__held_out_loss=False, **changes)
    shared = SharedInputs()
    train(config, tmp_path / "whole", shared)
    export = LoRAExport.on_step_end

    def die(self, trainer, module, batch):
        export(self, trainer, module, batch)
        if batch["step"] == 4:
            raise RuntimeError("killed")

    monkeypatch.setattr(LoRAExport, "on_step_end", die)
    with pytest.raises(RuntimeError, match="killed"):
        train(config, tmp_path / "killed", shared)
    monkeypatch.setattr(LoRAExport, "on_step_end", export)
    train(config, tmp_path / "killed", shared)
    whole, resumed = (
        load_file(tmp_path / folder / "lora" / "lora.safetensors") for folder in ("whole", "killed")
    )
    assert whole.keys() == resumed.keys()
    assert not [key for key in whole if not torch.equal(whole[key], resumed[key])]
    start = inject_lora(shared.base(config.model), config.network, config.seed).tensors()
    moved = [key for key in whole if not torch.equal(whole[key], start[key])]
    assert len(moved) > 0.4 * len(whole)


def test_dropout_changes_what_is_trained_and_a_rate_of_0_does_not(tmp_path, tiny_base, tiny_person):
    files = []
    for name, rate in (("off", 0.0), ("on", 0.3)):
        config = train_config(tiny_base, tiny_person, network__dropout=rate, epochs=1)
        train(config, tmp_path / name)
        files.append(load_file(tmp_path / name / "lora" / "lora.safetensors"))
    off, on = files
    assert [key for key in off if not torch.equal(off[key], on[key])]
