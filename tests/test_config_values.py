"""The values in conf/: the guide's table with model=sd15, and what pocket changes."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from lora_lab.config import check, to_config
from settings import CONF, composed_tree

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT.parent / "shared" / "guide" / "studies.json"
YAML_FILES = sorted(CONF.rglob("*.yaml"))

# The guide's table of settings (Stable-Diffusion-Text-To-Person, Comparison/, base config).
GUIDE_TABLE = {
    "model.clip_skip": 2,
    "data.resolution": 768,
    "data.batch_size": 3,
    "data.flip": False,
    "data.shuffle_caption": False,
    "data.keep_tokens": 0,
    "data.bucket_no_upscale": True,
    "data.bucket_reso_steps": 64,
    "data.min_bucket_reso": 256,
    "data.max_bucket_reso": 2048,
    "data.random_crop": False,
    "data.color_aug": False,
    "data.caption_dropout_rate": 0.0,
    "data.prior_loss_weight": 1.0,
    "data.weighted_captions": False,
    "data.max_token_length": 75,
    "network.dim": 192,
    "network.alpha": 1.0,
    "optimizer.name": "dadapt_adam",
    "optimizer.lr": 1.0,
    "optimizer.betas": [0.9, 0.99],
    "optimizer.weight_decay": 0.6,
    "optimizer.decouple": True,
    "optimizer.use_bias_correction": True,
    "optimizer.growth_rate": 1.02,
    "optimizer.text_encoder_lr": 1.0,
    "schedule.name": "cosine",
    "schedule.warmup_steps": 0,
    "objective.noise_offset": 0.0,
    "objective.min_snr_gamma": 5.0,
    "trainer.precision": "bf16-mixed",
    "trainer.accumulate_grad_batches": 1,
    "trainer.threads": 2,
    "epochs": 100,
    "save_every": 0.1,
    "seed": 1234,
}


def flat(config: DictConfig) -> dict[str, Any]:
    leaves: dict[str, Any] = {}

    def visit(node: Any, prefix: str) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                visit(value, f"{prefix}{key}.")
            else:
                leaves[prefix + key] = value

    visit(OmegaConf.to_container(config), "")
    return leaves


def data_from_kohya(kohya: dict[str, Any]) -> dict[str, Any]:
    """The data settings that have kohya's own names."""
    same = (
        *("bucket_no_upscale", "bucket_reso_steps", "min_bucket_reso", "max_bucket_reso"),
        *("random_crop", "color_aug", "caption_dropout_rate", "prior_loss_weight"),
        "weighted_captions",
    )
    values = {f"data.{name}": kohya[name] for name in same}
    return {**values, "data.max_token_length": int(kohya["max_token_length"])}


def table_from_kohya(kohya: dict[str, Any]) -> dict[str, Any]:
    """A kohya config in this project's keys."""
    arguments = dict(item.split("=") for item in kohya["optimizer_args"].split())
    flags = {"True": True, "False": False}
    assert kohya["max_resolution"] == "768,768"
    assert kohya["save_every_n_epochs"] / kohya["epoch"] == 0.1
    return {
        "model.clip_skip": kohya["clip_skip"],
        "data.resolution": int(kohya["max_resolution"].split(",")[0]),
        "data.batch_size": kohya["train_batch_size"],
        "data.flip": kohya["flip_aug"],
        "data.shuffle_caption": kohya["shuffle_caption"],
        "data.keep_tokens": kohya["keep_tokens"],
        **data_from_kohya(kohya),
        "network.dim": kohya["network_dim"],
        "network.alpha": kohya["network_alpha"],
        "optimizer.name": {"DAdaptAdam": "dadapt_adam"}[kohya["optimizer"]],
        "optimizer.lr": kohya["learning_rate"],
        "optimizer.betas": [float(beta) for beta in arguments["betas"].split(",")],
        "optimizer.weight_decay": float(arguments["weight_decay"]),
        "optimizer.decouple": flags[arguments["decouple"]],
        "optimizer.use_bias_correction": flags[arguments["use_bias_correction"]],
        "optimizer.growth_rate": float(arguments["growth_rate"]),
        "optimizer.text_encoder_lr": kohya["text_encoder_lr"] / kohya["learning_rate"],
        "schedule.name": kohya["lr_scheduler"],
        "schedule.warmup_steps": kohya["lr_warmup"],
        "objective.noise_offset": kohya["noise_offset"],
        "objective.min_snr_gamma": kohya["min_snr_gamma"],
        "trainer.precision": {"bf16": "bf16-mixed"}[kohya["mixed_precision"]],
        "trainer.accumulate_grad_batches": kohya["gradient_accumulation_steps"],
        "trainer.threads": kohya["num_cpu_threads_per_process"],
        "epochs": kohya["epoch"],
        "save_every": kohya["save_every_n_epochs"] / kohya["epoch"],
        "seed": int(kohya["seed"]),
    }


@pytest.mark.parametrize("data", ["person", "folder"])
def test_sd15_base_equals_the_guides_table(data):
    values = flat(composed_tree("model=sd15", f"data={data}"))
    assert {key: values[key] for key in GUIDE_TABLE} == GUIDE_TABLE


def test_the_literal_table_is_the_published_one():
    if not GUIDE.is_file():
        pytest.skip("the guide's published configs are not beside this checkout")
    kohya = json.loads(GUIDE.read_text(encoding="utf-8"))["base"]
    assert table_from_kohya(kohya) == GUIDE_TABLE


def test_pocket_changes_only_what_its_files_explain():
    pocket, sd15 = flat(composed_tree()), flat(composed_tree("model=sd15"))
    changed = {
        key
        for key in pocket
        if not key.startswith(("model.", "sampling.", "metrics.")) and pocket[key] != sd15[key]
    }
    files = [CONF / "model" / "pocket.yaml", CONF / "tuned" / "pocket_dadapt_adam.yaml"]
    explained = OmegaConf.merge(*(OmegaConf.load(file) for file in files))
    assert changed == {key for key in flat(explained) if not key.startswith("model.")}


@pytest.mark.parametrize("file", YAML_FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_every_setting_in_yaml_has_a_comment(file):
    """On its own line, or above the block that it stands in."""
    bare = []
    explained: int | None = None  # indentation of the block that the last comment stands above
    for line in file.read_text(encoding="utf-8").splitlines():
        text, indentation = line.strip(), len(line) - len(line.lstrip())
        if explained is not None and indentation < explained:
            explained = None
        if text.startswith("#"):
            explained = indentation or None
        elif text and explained is None and " # " not in text and not text.endswith(":"):
            bare.append(text)
    in_a_list = any(
        f"{name}:" in file.read_text(encoding="utf-8") for name in ("random", "prompts")
    )
    assert not [text for text in bare if not (in_a_list and text.startswith("- "))]


@pytest.mark.parametrize("file", YAML_FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_every_yaml_file_begins_with_what_it_is(file):
    assert file.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("group", ["optimizer", "schedule", "logger", "sampling"])
def test_every_choice_of_a_group_is_a_valid_config(group):
    needed = {
        "schedule_free_adamw": ["schedule=constant"],
        "custom": ["optimizer._target_=torch.optim.NAdam"],
    }
    for file in (CONF / group).glob("*.yaml"):
        more = needed.get(file.stem, [])
        check(to_config(composed_tree(f"{group}={file.stem}", *more)))


def test_a_study_is_added_to_the_base_without_changing_it():
    assert composed_tree("+study=network_rank") == composed_tree()


@pytest.mark.parametrize(
    ("choice", "tensorboard", "wandb"),
    [
        ("csv", False, False),
        ("tensorboard", True, False),
        ("wandb", False, True),
        ("[tensorboard,wandb]", True, True),
    ],
)
def test_loggers_can_be_combined(choice, tensorboard, wandb):
    logger = to_config(composed_tree(f"logger={choice}")).logger
    assert (logger.tensorboard, logger.wandb.enabled) == (tensorboard, wandb)
