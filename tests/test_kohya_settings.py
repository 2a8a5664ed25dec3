"""Settings of kohya's trainer as ours and back."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from safetensors.torch import save_file

from kohya_logs import write_settings
from lora_lab.cli.preflight import without_hydra
from lora_lab.config import TrainConfig, check, to_config
from lora_lab.config.convert import leaf_types
from lora_lab.config.store import register_schemas
from lora_lab.kohya.__main__ import main
from lora_lab.kohya.arguments import read_arguments
from lora_lab.kohya.experiment import experiment_name
from lora_lab.kohya.names import KOHYA_NAMES
from lora_lab.kohya.translation import translate
from lora_lab.kohya.values import parse, split_arguments
from settings import CONF

TOML = """
[model]
pretrained_model_name_or_path = "/models/base.safetensors"
[training]
train_data_dir = "/person/train"
network_module = "networks.lora"
network_dim = 16
network_alpha = 8
network_args = ["conv_dim=4", "conv_alpha=2", "rank_dropout=0.1"]
network_train_unet_only = true
optimizer_type = "Prodigy"
optimizer_args = ["weight_decay=0.1", "betas=0.9,0.99"]
learning_rate = 1.0
lr_scheduler = "polynomial"
lr_scheduler_power = 2
max_train_epochs = 20
save_every_n_epochs = 5
resolution = 512
mixed_precision = "no"
seed = 7
"""


def imported(path: Path, tmp_path: Path, *further: str) -> TrainConfig:
    """The settings that Hydra composes from an imported file with the command that was printed."""
    out = tmp_path / "experiment" / "it.yaml"
    assert main(["import", str(path), "--out", str(out)]) == 0
    register_schemas()
    GlobalHydra.instance().clear()
    searched = f"hydra.searchpath=[{shlex.quote('file://' + str(tmp_path))}]"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose(
            "train", [searched, "+experiment=it", *further], return_hydra_config=True
        )
    config = to_config(without_hydra(composed))
    check(config)
    return config


def test_settings_of_the_gui_become_ours(tmp_path):
    config = imported(write_settings(tmp_path / "gui.json"), tmp_path)
    assert config.model.checkpoint == "/models/base.safetensors" and config.model.clip_skip == 2
    assert config.data.dir == "/person" and config.data.resolution == 512
    assert config.network.dim == 8 and config.network.alpha == 1 and config.epochs == 10
    assert config.optimizer.name == "dadapt_adam" and config.optimizer.betas == [0.9, 0.99]
    assert config.optimizer.growth_rate == 1.02 and config.optimizer.decouple
    assert not config.optimizer.use_bias_correction  # dadaptation's own default
    assert config.optimizer.text_encoder_lr == 0.5 and config.optimizer.lr == 1.0
    assert config.schedule.name == "cosine" and config.save_every == 0.2 and config.seed == 1234
    assert config.trainer.precision == "bf16-mixed" and config.objective.min_snr_gamma == 5


def test_settings_of_sd_scripts_become_ours(tmp_path):
    path = tmp_path / "it.toml"
    path.write_text(TOML, encoding="utf-8")
    config = imported(path, tmp_path)
    assert (config.network.conv_dim, config.network.conv_alpha) == (4, 2.0)
    assert config.network.rank_dropout == 0.1 and not config.network.train_text_encoder
    assert config.optimizer.name == "prodigy" and config.optimizer.growth_rate is None
    assert config.schedule.name == "polynomial" and config.schedule.power == 2
    assert config.save_every == 0.25 and config.data.caption_extension == ".caption"
    assert config.model.clip_skip == 1 and config.objective.min_snr_gamma == 0  # not given there


def metadata(**changes: str) -> dict[str, str]:
    """As sd-scripts writes them; all texts."""
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": "32",
        "ss_network_alpha": "16.0",
        "ss_optimizer": "dadaptation.dadapt_adam.DAdaptAdam(decouple=True,betas=(0.9, 0.99))",
        "ss_unet_lr": "1.0",
        "ss_text_encoder_lr": "1.0",
        "ss_lr_scheduler": "constant",
        "ss_num_epochs": "12",
        "ss_seed": "3",
        "ss_resolution": "(640, 640)",
        "ss_clip_skip": "None",
        "ss_mixed_precision": "bf16",
        "ss_tag_frequency": "{}",
        "ss_sd_model_name": "base.safetensors",
        **changes,
    }


def write_lora_file(path: Path, told: dict[str, str]) -> Path:
    """A LoRA file with metadata."""
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1, 1)}, path, told)
    return path


def test_the_metadata_of_a_lora_becomes_ours(tmp_path):
    path = write_lora_file(tmp_path / "a.safetensors", metadata())
    config = imported(path, tmp_path, "data.dir=/person", "model.checkpoint=/m/base.safetensors")
    assert config.network.dim == 32 and config.data.resolution == 640 and config.epochs == 12
    assert config.optimizer.betas == [0.9, 0.99] and config.model.clip_skip == 1


@pytest.mark.parametrize("kind", ["json", "toml"])
def test_import_export_import_is_stable(tmp_path, kind):
    path = tmp_path / f"it.{kind}"
    if kind == "json":
        write_settings(path, noise_offset=0.05, noise_offset_type="Original", xformers=True)
    else:
        path.write_text(TOML, encoding="utf-8")
    first = imported(path, tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump(as_tree(first)), encoding="utf-8")
    assert main(["export", str(run), "--out", str(tmp_path / "back.toml")]) == 0
    again = imported(tmp_path / "back.toml", tmp_path)
    assert as_tree(again) == as_tree(first)
    assert not translate(read_arguments(tmp_path / "back.toml")).impossible


def as_tree(config: TrainConfig) -> dict[str, Any]:
    """Settings as nested plain values."""
    from dataclasses import asdict

    return asdict(config)


def test_every_name_ends_in_exactly_one_list(tmp_path):
    path = write_settings(tmp_path / "a.json", made_up=3, xformers="xformers")
    arguments = read_arguments(path)
    result = translate(arguments)
    lists = (result.taken, result.ignored, result.impossible)
    for name in arguments.values:
        count = sum(any(name in entry.split(": ") for entry in one) for one in lists)
        assert count >= 1, name
    assert "made_up" in result.impossible
    assert "xformers" in result.ignored


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"optimizer": "SomeOtherOptimizer"}, "optimizer_type"),
        ({"lr_scheduler": "adafactor"}, "lr_scheduler"),
        ({"max_resolution": "512,768"}, "resolution"),
        ({"LoRA_type": "LyCORIS/iA3"}, "network_module"),
        ({"scale_weight_norms": 1}, "scale_weight_norms"),
        ({"full_fp16": True}, "full_fp16"),
        ({"additional_parameters": "--unheard_of 3"}, "unheard_of"),
    ],
)
def test_what_cant_be_expressed_is_named_with_a_reason(tmp_path, changes, name, capsys):
    path = write_settings(tmp_path / "a.json", **changes)
    assert translate(read_arguments(path)).impossible[name]
    assert main(["import", str(path), "--out", str(tmp_path / "experiment" / "a.yaml")]) == 0
    told = capsys.readouterr().out
    assert told.startswith("Can't be expressed here")
    assert name in told.split("To be given")[0].split("is written")[0]
    assert f"#   - {name}: " in (tmp_path / "experiment" / "a.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "{", "not whole JSON"),
        ("a.json", "[1]", "no settings of kohya_ss"),
        ("a.toml", "a = = 1", "not TOML"),
        ("a.toml", "a = 1", "no settings of sd-scripts"),
        ("a.toml", "[[datasets]]\nresolution=1", "--dataset_config"),
        ("a.safetensors", "short", "not a complete safetensors"),
        ("a.txt", "x", "neither .json"),
    ],
)
def test_bad_files_are_named_and_end_with_2(tmp_path, name, content, words, capsys):
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert main(["import", str(tmp_path / name)]) == 2
    told = capsys.readouterr().err
    assert words in told and name in told and told.count("\n") == 1


def test_a_lora_without_metadata_is_refused(tmp_path, capsys):
    path = write_lora_file(tmp_path / "a.safetensors", {"format": "pt"})
    assert main(["import", str(path)]) == 2
    assert "no ss_* metadata" in capsys.readouterr().err


def test_names_that_hydra_takes_for_numbers_get_a_prefix():
    assert experiment_name("INF") == "kohya_INF" and experiment_name("1.02") == "kohya_1_02"
    assert experiment_name("my lora") == "my_lora"


def test_values_are_read_and_never_evaluated():
    assert parse("(0.9, 0.99)") == [0.9, 0.99] and parse("True") is True and parse("None") is None
    assert parse("__import__('os')") == "__import__('os')"
    kind, arguments = split_arguments("torch.optim.AdamW(betas=(0.9, 0.99),eps=1e-08)")
    assert kind == "AdamW" and arguments == ["betas=(0.9, 0.99)", "eps=1e-08"]


def test_the_table_of_names_has_no_key_that_is_gone():
    assert not set(KOHYA_NAMES) - set(leaf_types(TrainConfig))
