"""Settings of kohya's trainer as ours and back."""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from kohya_logs import write_settings
from lora_lab.cli.preflight import without_hydra
from lora_lab.config import TrainConfig, check, to_config
from lora_lab.config.convert import leaf_types
from lora_lab.kohya.__main__ import main
from lora_lab.kohya.arguments import read_arguments
from lora_lab.kohya.experiment import experiment_name
from lora_lab.kohya.names import KOHYA_NAMES
from lora_lab.kohya.translation import translate
from lora_lab.kohya.values import parse, split_arguments
from lora_lab.optimizers import build_optimizer
from settings import composed, composed_tree

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
    searched = f"hydra.searchpath=[{shlex.quote('file://' + str(tmp_path))}]"
    tree = composed_tree(searched, "+experiment=it", *further, with_hydra=True)
    config = to_config(without_hydra(tree))
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
        ("a.json", "{", "not complete JSON"),
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


def gui(tmp_path: Path, *further: str, **changes: Any) -> TrainConfig:
    """What settings of the GUI with some changes become."""
    return imported(write_settings(tmp_path / "gui.json", **changes), tmp_path, *further)


def test_an_override_of_0_epochs_is_none(tmp_path):
    assert gui(tmp_path, max_train_epochs=0, epoch=7).epochs == 7
    assert gui(tmp_path, max_train_epochs="", epoch=7).epochs == 7
    assert gui(tmp_path, max_train_epochs=3, epoch=7).epochs == 3


@pytest.mark.parametrize("steps", [300, "300"])
def test_a_run_counted_in_steps_asks_for_its_epochs(tmp_path, steps, capsys):
    path = write_settings(tmp_path / "gui.json", max_train_epochs="", max_train_steps=steps)
    result = translate(read_arguments(path))
    assert "300 steps" in result.to_give["epochs"] and "epochs" not in result.settings
    assert gui(tmp_path, "epochs=4", max_train_epochs="", max_train_steps=steps).epochs == 4
    assert "epochs=…" in capsys.readouterr().out


def test_sd_scripts_own_defaults_of_optimizers_come_along(tmp_path):
    nesterov = gui(tmp_path, optimizer="SGDNesterov", optimizer_args="").optimizer
    assert nesterov.momentum == 0.9 and nesterov.args == {"nesterov": True}
    config = gui(tmp_path, optimizer="Adafactor", optimizer_args="", lr_scheduler="cosine")
    assert config.optimizer.args["relative_step"] and config.optimizer.args["scale_parameter"]
    assert config.optimizer.lr == 1 and config.schedule.name == "constant"
    for optimizer in (nesterov, config.optimizer):
        build_optimizer({"unet": [torch.nn.Parameter(torch.zeros(2, 2))]}, optimizer)


def test_kohyas_dadaptation_is_the_preprints_class(tmp_path):
    config = gui(tmp_path, optimizer="DAdaptation", optimizer_args="weight_decay=0.1")
    assert config.optimizer.name == "custom" and config.optimizer.weight_decay == 0.1
    parameters = {"unet": [torch.nn.Parameter(torch.zeros(2, 2))]}
    assert type(build_optimizer(parameters, config.optimizer)).__name__ == "DAdaptAdamPreprint"


def test_a_class_that_a_file_names_is_not_imported_unasked(tmp_path):
    path = write_settings(tmp_path / "a.json", optimizer="torch.optim.NAdam", optimizer_args="")
    result = translate(read_arguments(path))
    assert "torch.optim.NAdam" in result.to_give["optimizer._target_"]
    assert "optimizer._target_" not in result.settings


def test_a_placeholder_of_a_reg_folder_asks_for_it(tmp_path, capsys):
    config = gui(tmp_path, "data.reg_dir=/reg", reg_data_dir="<reg images>")
    assert config.data.regularization and "data.reg_dir=…" in capsys.readouterr().out
    assert not gui(tmp_path, reg_data_dir="").data.regularization


def test_lora_weights_in_bf16_train_with_dadaptation(tmp_path):
    config = gui(tmp_path, full_bf16=True)
    assert (config.trainer.precision, config.trainer.lora_precision) == ("bf16-true", "bf16")


@pytest.mark.parametrize(
    ("changes", "family"),
    [
        ({"sdxl": True}, "SDXL"),
        ({"v2": True}, "Stable Diffusion 2"),
        ({"sd3_checkbox": True}, "Stable Diffusion 3"),
        ({"flux1_checkbox": True}, r"Flux\.1"),
        ({"LoRA_type": "Flux1"}, "Flux1"),
        ({"token_string": "zqx"}, "Textual Inversion"),
    ],
)
def test_other_models_and_trainings_are_refused_by_name(tmp_path, changes, family, capsys):
    path = write_settings(tmp_path / "a.json", **changes)
    assert main(["import", str(path), "--out", str(tmp_path / "experiment" / "a.yaml")]) == 2
    assert re.search(family, capsys.readouterr().err) and not (tmp_path / "experiment").exists()


def test_dreambooth_is_refused_by_name(tmp_path, capsys):
    path = tmp_path / "a.json"
    told = {"learning_rate": 1e-6, "learning_rate_te": 1e-6, "optimizer": "AdamW"}
    path.write_text(json.dumps({**told, "train_batch_size": 1}), encoding="utf-8")
    assert main(["import", str(path)]) == 2
    assert "DreamBooth" in capsys.readouterr().err


@pytest.mark.parametrize("version", ["sdxl_base_v1-0", "sd_v2_768_v", "flux1"])
def test_a_lora_of_another_model_is_refused_by_name(tmp_path, version, capsys):
    path = write_lora_file(tmp_path / "a.safetensors", metadata(ss_base_model_version=version))
    assert main(["import", str(path)]) == 2
    assert f"ss_base_model_version is {version}" in capsys.readouterr().err


def test_what_the_gui_does_with_its_fields(tmp_path):
    config = gui(
        tmp_path,
        train_data_dir="/pictures/img",
        lr_scheduler="cosine_with_restarts",
        lr_scheduler_num_cycles="",
        lr_warmup=10,
        lr_warmup_steps=25,
        epoch=10,
        sample_prompts="# mine\na cat --d 5\na dog --d 7 --s 9\n\na cow",
        huber_scale=1,
        no_half_vae=True,
        resize_interpolation="lanczos4",
    )
    assert config.data.dir == "/pictures/img" and config.data.resize_filter == "lanczos"
    assert config.schedule.cycles == 10 and config.schedule.warmup_steps == 25
    assert config.sampling.prompts.complex == "a cat" and config.sampling.seed == 5
    assert config.sampling.prompts.random == ["a dog", "a cow"]
    assert config.sampling.random_seeds[0] == 7 and len(config.sampling.random_seeds) == 2
    result = translate(read_arguments(tmp_path / "gui.json"))
    assert not {"huber_scale", "no_half_vae", "factor"} & result.impossible.keys()


def test_constant_with_a_warm_up_is_taken_without(tmp_path):
    path = write_settings(tmp_path / "gui.json", lr_scheduler="constant", lr_warmup=10)
    assert imported(path, tmp_path).schedule.warmup_share == 0
    assert (
        "constant_with_warmup has one" in translate(read_arguments(path)).ignored["lr_warmup_steps"]
    )


def test_dora_of_the_gui_is_dora_and_a_factor_elsewhere_is_not_read(tmp_path):
    config = gui(tmp_path, LoRA_type="LyCORIS/LoCon", dora_wd=True, factor=-1, wd_on_output=False)
    assert config.network.dora and config.network.name == "lora"


@pytest.mark.parametrize(
    ("changes", "kept", "named"),
    [
        (
            {"min_snr_gamma": 5, "debiased_estimation_loss": True},
            "objective.min_snr_gamma",
            "debiased_estimation_loss",
        ),
        (
            {"noise_offset": 0.1, "multires_noise_iterations": 6},
            "objective.noise_offset",
            "multires_noise_iterations",
        ),
    ],
)
def test_two_settings_that_we_refuse_together_leave_one_and_a_line(tmp_path, changes, kept, named):
    path = tmp_path / "a.toml"
    lines = [f"{key} = {str(value).lower()}" for key, value in changes.items()]
    path.write_text("\n".join([TOML, *lines]), encoding="utf-8")
    config = imported(path, tmp_path)
    assert getattr(config.objective, kept.partition(".")[2]) > 0
    assert named in translate(read_arguments(path)).impossible


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"lr_scheduler": "polynomial"}, "lr_scheduler"),
        ({"min_snr_gamma": 5, "zero_terminal_snr": True}, "zero_terminal_snr"),
        ({"gradient_accumulation_steps": 4}, "gradient_accumulation_steps"),
        ({"module_dropout": 0.1}, "network_args: module_dropout"),
    ],
)
def test_what_is_done_otherwise_on_purpose_is_told(tmp_path, changes, name, capsys):
    path = write_settings(tmp_path / "a.json", **changes)
    assert name in translate(read_arguments(path)).differs
    assert main(["import", str(path), "--out", str(tmp_path / "experiment" / "a.yaml")]) == 0
    assert "Done otherwise on purpose, see docs/parity.md (1)" in capsys.readouterr().out


def test_weighted_captions_are_imported_as_kohya_weights_them(tmp_path):
    config = gui(tmp_path, weighted_captions=True)
    assert config.data.weighted_captions and not config.data.restore_mean


def test_an_import_ends_with_the_command_and_the_list_lies_beside_it(tmp_path, capsys):
    out = tmp_path / "experiment" / "a.yaml"
    path = write_settings(tmp_path / "a.json", made_up=3)
    assert main(["import", str(path), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Can't be expressed here (1)") and len(lines) <= 12
    assert f"+experiment={out.stem}" in lines[-2] and "a.import.txt" in lines[-1]
    record = out.with_name("a.import.txt").read_text(encoding="utf-8")
    assert "network_dim: network.dim" in record and "Without effect" in record


def exported(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    """What sd-scripts would be told of our settings, with the head under ``head``."""
    fixed = ("model=sd15", "model.checkpoint=/m/base.safetensors", "data=folder")
    tree = as_tree(composed(*fixed, "data.dir=/person", *overrides))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    out = tmp_path / "out.toml"
    assert main(["export", str(tmp_path / "config.yaml"), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    return {**tomllib.loads(text), "head": text.partition("\n\n")[0]}


def test_an_export_loses_nothing_that_kohya_can_be_told(tmp_path):
    reg = tmp_path / "reg"
    told = exported(
        *(tmp_path, "network.dora=true", f"data.reg_dir={reg}", "schedule=constant"),
        *("schedule.warmup_steps=9", "model.prediction_type=v_prediction"),
    )
    assert told["network_module"] == "lycoris.kohya" and "dora_wd=True" in told["network_args"]
    assert told["reg_data_dir"] == str(reg) and told["v_parameterization"]
    assert told["lr_scheduler"] == "constant_with_warmup" and told["lr_warmup_steps"] == 9
    assert told["no_half_vae"] is True


def test_an_export_folds_rslora_into_alpha_and_names_a_class(tmp_path):
    told = exported(
        *(tmp_path, "network.rslora=true", "network.dim=16", "network.alpha=2"),
        *("optimizer=custom", "optimizer._target_=torch.optim.NAdam"),
    )
    assert told["network_alpha"] == pytest.approx(8.0)  # 2 / sqrt(16) = 8 / 16
    assert told["optimizer_type"] == "torch.optim.NAdam"


def test_an_export_names_what_kohya_cant_be_told(tmp_path):
    head = exported(
        *(tmp_path, "data.trigger=zqx", "objective.timestep_sampling=logit_normal"),
        *("data.weighted_captions=true", "data.vae_precision=float16"),
    )["head"]
    for key in ("data.trigger=zqx", "objective.timestep_sampling=logit_normal"):
        assert f"#   {key}" in head
    assert "data.restore_mean" in head and "data.vae_precision=float16" in head
    assert "data.repeats" not in head and "metrics" not in head


def test_an_export_of_the_embedded_person_names_its_folder(tmp_path):
    told = exported(tmp_path, "data.dir=embedded:person", "data.batch_size=1")
    assert Path(told["train_data_dir"]).is_dir() and Path(told["train_data_dir"]).name == "train"
