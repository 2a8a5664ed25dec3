"""Settings → LoRA file → import → the same settings, for settings drawn at random."""

import dataclasses
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from lora_lab.config import TrainConfig, check
from lora_lab.errors import ConfigError
from lora_lab.kohya.arguments import read_arguments
from lora_lab.kohya.names import KOHYA_NAMES, NONE
from lora_lab.kohya.own_fields import OF_THE_MACHINE, PATHS, SETTINGS, told_keys
from lora_lab.kohya.ss_metadata import UNTOLD
from lora_lab.kohya.translated import Translation
from lora_lab.kohya.translation import translate
from lora_lab.lora_file import TrainingFacts, build_metadata
from lora_lab.lora_file.training_metadata import told_settings
from lora_lab.network import network_metadata
from lora_lab.network.targets import Target
from lora_lab.optimizers import described
from lora_lab.run_folder.identity import influential
from settings import changed
from settings import composed as as_typed

OPTIMIZERS = (
    *("adamw", "dadapt_adam", "dadapt_adan", "dadapt_lion", "dadapt_sgd", "dadapt_adagrad"),
    *("prodigy", "schedule_free_adamw", "adafactor", "lion", "sgd"),
)
NETWORKS = ("lora", "lora_conv", "loha", "lokr")
NUMBER = st.floats(0.01, 0.9).map(lambda value: round(value, 4))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "model.clip_skip": st.integers(1, 4),
    "data.resolution": st.sampled_from([512, 640, 768]),
    "data.enable_bucket": st.booleans(),
    "data.bucket_no_upscale": st.booleans(),
    "data.resize_filter": st.sampled_from(["area", "lanczos"]),
    "data.batch_size": st.integers(1, 9),
    "data.flip": st.booleans(),
    "data.color_aug": st.booleans(),
    "data.random_crop": st.booleans(),
    "data.shuffle_caption": st.booleans(),
    "data.keep_tokens": st.integers(0, 3),
    "data.caption_dropout_rate": NUMBER,
    "data.caption_dropout_every_n_epochs": st.integers(0, 3),
    "data.caption_tag_dropout_rate": NUMBER,
    "data.weighted_captions": st.booleans(),
    "data.max_token_length": st.sampled_from([75, 150, 225]),
    "data.prior_loss_weight": NUMBER,
    "data.trigger": st.one_of(st.none(), st.just("zqx person")),
    "network.dim": st.integers(1, 64),
    "network.alpha": NUMBER,
    "network.dropout": st.one_of(st.just(0.0), NUMBER),
    "network.rank_dropout": st.one_of(st.just(0.0), NUMBER),
    "network.module_dropout": st.one_of(st.just(0.0), NUMBER),
    "network.dora": st.booleans(),
    "network.rslora": st.booleans(),
    "network.train_unet": st.booleans(),
    "network.train_text_encoder": st.booleans(),
    "optimizer.lr": NUMBER,
    "optimizer.weight_decay": NUMBER,
    "optimizer.text_encoder_lr": st.sampled_from([1.0, 0.5]),
    "optimizer.d_coef": NUMBER,
    "optimizer.growth_rate": st.sampled_from([1.02, 1.1]),
    "optimizer.betas": st.sampled_from([[0.9, 0.99], [0.8, 0.95]]),
    "schedule.warmup_steps": st.sampled_from([0, 7]),
    "schedule.warmup_share": st.sampled_from([0.0, 0.0625]),
    "schedule.cycles": st.integers(1, 4),
    "schedule.power": NUMBER,
    "objective.noise_offset": st.one_of(st.just(0.0), NUMBER),
    "objective.noise_offset_random": st.booleans(),
    "objective.multires_noise_iterations": st.integers(0, 8),
    "objective.multires_noise_discount": NUMBER,
    "objective.ip_noise_gamma": st.one_of(st.just(0.0), NUMBER),
    "objective.min_snr_gamma": st.one_of(st.just(0.0), NUMBER),
    "objective.debiased_estimation": st.booleans(),
    "objective.zero_terminal_snr": st.booleans(),
    "objective.loss_type": st.sampled_from(["l2", "l1", "huber", "smooth_l1"]),
    "objective.huber_schedule": st.sampled_from(["constant", "exponential", "snr"]),
    "objective.huber_c": NUMBER,
    "objective.timestep_sampling": st.sampled_from(["uniform", "logit_normal"]),
    "trainer.precision": st.sampled_from(["32-true", "bf16-mixed", "16-mixed"]),
    "trainer.accumulate_grad_batches": st.integers(1, 4),
    "trainer.gradient_clip_val": st.one_of(st.just(0.0), NUMBER),
    "trainer.gradient_checkpointing": st.booleans(),
    "epochs": st.integers(1, 200),
    "save_every": NUMBER,
    "seed": st.integers(0, 2**31 - 1),
    "output_name": st.sampled_from(["lora", "zqx person-2"]),
}


@cache
def with_group(group: str) -> TrainConfig:
    """The guide's settings with another choice of one group."""
    return as_typed("model=sd15", "model.checkpoint=x", "data=folder", "data.dir=x", group)


@cache
def composed(optimizer: str, network: str, schedule: str) -> TrainConfig:
    """The guide's settings with other groups."""
    return dataclasses.replace(
        with_group(f"optimizer={optimizer}"),
        network=with_group(f"network={network}").network,
        schedule=with_group(f"schedule={schedule}").schedule,
    )


@st.composite
def configs(draw: st.DrawFn) -> TrainConfig:
    """A config that training accepts, with some settings other than the guide's."""
    group = [draw(st.sampled_from(OPTIMIZERS)), draw(st.sampled_from(NETWORKS))]
    schedule = draw(st.sampled_from(["constant", "linear", "cosine", "cosine_with_restarts"]))
    config = composed(*group, "constant" if group[0].startswith("schedule_free") else schedule)
    names = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=6, unique=True))
    config = changed(config, {name: draw(VALUES[name]) for name in names})
    try:
        check(config)
    except ConfigError:
        assume(False)
    return config


def facts(config: TrainConfig) -> TrainingFacts:
    """What a run of the config would tell, with one layer of each kind in its network."""
    network, data = config.network, config.data
    layers = [Target("unet", "a", nn.Linear(2, 2), network.dim, network.alpha)]
    if network.conv_dim is not None:
        conv = nn.Conv2d(2, 2, 3)
        layers.append(Target("unet", "b", conv, network.conv_dim, network.conv_alpha or 1.0))
    stub: Any = SimpleNamespace(config=network, layers=dict.fromkeys(layers))
    limits = (data.min_bucket_reso or 256, data.max_bucket_reso or 1024)
    return TrainingFacts(
        step=5,
        total_steps=10,
        epoch=1,
        batches_per_epoch=3,
        image_counts={"1_zqx person": (1, 9)},
        reg_image_counts={},
        tag_frequency={},
        bucket_counts={(512, 512): 9},
        bucket_limits=limits if data.enable_bucket else None,
        mean_aspect_error=0.01,
        optimizer=described(config.optimizer),
        network=network_metadata(stub),
        prediction_type="epsilon",
        checkpoint_name="base.safetensors",
        checkpoint_sha256=None,
        checkpoint_legacy_hash=None,
        started_at=1.0,
        finished_at=2.0,
        session_id=1,
    )


def imported(path: Path, metadata: dict[str, str]) -> Translation:
    """What the import makes of a LoRA file with these metadata."""
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(1, 1)}, path, metadata)
    return translate(read_arguments(path))


def differing(result: Translation, config: TrainConfig) -> set[str]:
    """The told settings that came out otherwise; one that isn't set keeps its group's value."""
    network = "lora_conv" if config.network.conv_dim else config.network.name
    base = told_settings(composed(config.optimizer.name, network, config.schedule.name))
    wanted = told_settings(config)
    return {
        key
        for key, value in wanted.items()
        if (result.settings[key] if key in result.settings else base[key]) != value
    }


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("round") / "lora.safetensors"


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(config=configs())
def test_our_own_file_gives_the_same_settings(config, path):
    result = imported(path, build_metadata(config, facts(config)))
    assert differing(result, config) == set()
    assert not result.impossible and result.groups["optimizer"] == config.optimizer.name
    assert not [name for name, why in result.ignored.items() if "doesn't know" in why]


def test_every_setting_that_decides_a_lora_is_told_but_paths_and_the_machines():
    keys = influential(dataclasses.asdict(with_group("optimizer=adamw")))
    trained = {key for key in keys if not key.startswith("callbacks.")}
    assert trained - {*told_keys()} - {*PATHS, *OF_THE_MACHINE} == set()


CANT_SAY = {key for key, name in KOHYA_NAMES.items() if name == NONE or name in UNTOLD}
"""Settings for which kohya's metadata have no field."""
OF_ITS_OWN_FILE = {
    "save_every",  # how often is not told, only how far this file is
    "schedule.power",
    "schedule.cycles",
    "data.restore_mean",
    "data.caption_lines",
    "data.regularization",
    "network.rslora",  # folded into the alpha
    "model.name",
}


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(config=configs())
def test_kohyas_own_fields_lose_only_what_they_cant_say(config, path):
    """The same file without our field, as another tool reads it."""
    metadata = build_metadata(config, facts(config))
    del metadata[SETTINGS]
    result = imported(path, metadata)
    lost = differing(result, config)
    expected = CANT_SAY | OF_ITS_OWN_FILE
    if not config.data.enable_bucket or config.data.bucket_no_upscale:
        expected |= {"data.min_bucket_reso", "data.max_bucket_reso"}
    if not config.objective.multires_noise_iterations:
        expected |= {"objective.multires_noise_discount"}
    if not (config.network.train_unet and config.network.train_text_encoder):
        expected |= {"optimizer.text_encoder_lr", "optimizer.lr"}
    named = {key for key, name in KOHYA_NAMES.items() if name in result.impossible}
    assert sorted(lost - expected - named) == []
