"""Ranges of all settings, checked at once before anything is loaded."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lora_lab.config.sample import SampleConfig, SamplingConfig
from lora_lab.config.train import OptimizerConfig, TrainConfig
from lora_lab.errors import ConfigError

OPTIMIZERS = ("dadapt_adam", "prodigy", "adamw")
SCHEDULES = ("cosine", "constant", "linear", "polynomial")
PRECISIONS = ("32-true", "bf16-mixed")
ACCELERATORS = ("auto", "cpu", "gpu", "mps")
WANDB_MODES = ("auto", "online", "offline")
SAMPLERS = ("Euler a", "Euler", "DDIM", "DPM++ 2M Karras", "DPM++ SDE Karras", "UniPC")
OPTIMIZERS_WITHOUT_D = ("adamw",)

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 ._-]{0,99}")
_MAX_TRAIN_SEED = 2**31 - 1
_MAX_IMAGE_SEED = 2**32 - 1


@dataclass(frozen=True)
class Rule:
    """One range: the key, what is allowed in words, and the test of a value."""

    key: str
    allowed: str
    holds: Callable[[Any], bool]


def at_least(key: str, low: float) -> Rule:
    """A finite number, ``low`` or more."""
    return Rule(key, f">= {low}", lambda value: math.isfinite(value) and value >= low)


def above(key: str, low: float) -> Rule:
    """A finite number above ``low``."""
    return Rule(key, f"> {low}", lambda value: math.isfinite(value) and value > low)


def between(key: str, low: int, high: int) -> Rule:
    """A number from ``low`` to ``high``."""
    return Rule(key, f"from {low} to {high}", lambda value: low <= value <= high)


def one_of(key: str, choices: tuple[str, ...]) -> Rule:
    """One of a few words."""
    return Rule(key, f"one of {', '.join(choices)}", lambda value: value in choices)


def or_null(rule: Rule) -> Rule:
    """The rule, or null."""
    return Rule(
        rule.key, f"{rule.allowed} or null", lambda value: value is None or rule.holds(value)
    )


def text(key: str) -> Rule:
    """Text that is not empty."""
    return Rule(key, "text that is not empty", lambda value: bool(value.strip()))


TRAIN_RULES = (
    text("model.name"),
    text("model.checkpoint"),
    at_least("model.clip_skip", 1),
    text("data.dir"),
    or_null(text("data.held_out_dir")),
    at_least("data.resolution", 8),
    or_null(at_least("data.repeats", 1)),
    at_least("data.batch_size", 1),
    Rule(
        "data.caption_extension",
        "a dot and letters or digits, such as .txt",
        lambda value: re.fullmatch(r"\.[A-Za-z0-9]+", value) is not None,
    ),
    at_least("data.keep_tokens", 0),
    or_null(text("data.cache_dir")),
    at_least("network.dim", 1),
    above("network.alpha", 0),
    one_of("optimizer.name", OPTIMIZERS),
    at_least("optimizer.lr", 0),
    Rule(
        "optimizer.betas",
        "two numbers >= 0 and < 1, such as [0.9,0.99]",
        lambda value: len(value) == 2 and all(0 <= beta < 1 for beta in value),
    ),
    above("optimizer.eps", 0),
    at_least("optimizer.weight_decay", 0),
    or_null(above("optimizer.growth_rate", 1)),
    or_null(above("optimizer.d0", 0)),
    at_least("optimizer.text_encoder_lr", 0),
    one_of("schedule.name", SCHEDULES),
    at_least("schedule.warmup_steps", 0),
    above("schedule.power", 0),
    at_least("objective.noise_offset", 0),
    at_least("objective.min_snr_gamma", 0),
    one_of("trainer.precision", PRECISIONS),
    one_of("trainer.accelerator", ACCELERATORS),
    at_least("trainer.devices", 1),
    at_least("trainer.accumulate_grad_batches", 1),
    at_least("trainer.gradient_clip_val", 0),
    at_least("trainer.threads", 0),
    Rule("logger.csv", "true: metrics.csv is what reports are made from", lambda value: value),
    text("logger.wandb.project"),
    or_null(text("logger.wandb.group")),
    one_of("logger.wandb.mode", WANDB_MODES),
    at_least("study.base_runs", 2),
    or_null(text("study.reuse_from")),
    at_least("epochs", 1),
    Rule("save_every", "> 0 and <= 1, a share of the run", lambda value: 0 < value <= 1),
    between("seed", 0, _MAX_TRAIN_SEED),
    Rule(
        "output_name",
        "1 to 100 letters, digits, spaces, dots, _ and -, beginning with a letter, digit or _",
        lambda value: _FILE_NAME.fullmatch(value) is not None,
    ),
)

SAMPLING_RULES = (
    Rule("checkpoints", "a list of texts that are not empty", all),
    text("prompts.simple"),
    text("prompts.complex"),
    Rule("prompts.random", "a list of texts that are not empty", all),
    or_null(text("subject")),
    between("seed", 0, _MAX_IMAGE_SEED),
    Rule(
        "random_seeds",
        f"a list of numbers from 0 to {_MAX_IMAGE_SEED}",
        lambda value: all(0 <= seed <= _MAX_IMAGE_SEED for seed in value),
    ),
    one_of("sampler", SAMPLERS),
    at_least("steps", 1),
    at_least("guidance", 1),
    Rule("width", ">= 8 and a multiple of 8", lambda value: value >= 8 and value % 8 == 0),
    Rule("height", ">= 8 and a multiple of 8", lambda value: value >= 8 and value % 8 == 0),
    at_least("batch_size", 1),
    Rule("lora_weight", "a finite number", math.isfinite),
    at_least("clip_skip", 1),
)

SAMPLE_RULES = (
    or_null(text("run")),
    or_null(text("lora")),
    or_null(text("prompt")),
    between("count", 1, 10_000),
    text("output"),
    at_least("threads", 0),
)


def check(config: TrainConfig) -> None:
    """Checks the ranges of all settings of a training run.

    Raises:
        ConfigError: one line for each setting out of range.
    """
    problems = _broken(config, TRAIN_RULES)
    problems += _optimizer_problems(config.optimizer)
    if not (config.network.train_unet or config.network.train_text_encoder):
        problems.append(
            "network.train_unet and network.train_text_encoder are both false, which leaves "
            "nothing to train; set one of them to true"
        )
    problems += _sampling_problems(config.sampling)
    _refuse(problems)


def check_sample(config: SampleConfig) -> None:
    """Checks the ranges of all settings of ``sample.py``.

    Raises:
        ConfigError: one line for each setting out of range.
    """
    problems = _broken(config, SAMPLE_RULES)
    if (config.run is None) == (config.lora is None):
        problems.append(
            f"either run or lora must be set, got run={config.run} and lora={config.lora}; "
            "run=<run or sweep folder> draws grids, lora=<file> draws images"
        )
    problems += _sampling_problems(config.sampling)
    _refuse(problems)


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ConfigError("\n".join(problems))


def _broken(config: object, rules: tuple[Rule, ...], prefix: str = "") -> list[str]:
    problems = []
    for rule in rules:
        value = config
        for name in rule.key.split("."):
            value = getattr(value, name)
        if not rule.holds(value):
            problems.append(f"{prefix}{rule.key} must be {rule.allowed}, got {_shown(value)}")
    return problems


def _optimizer_problems(optimizer: OptimizerConfig) -> list[str]:
    without_d = optimizer.name in OPTIMIZERS_WITHOUT_D
    problems = []
    for key, value in (("growth_rate", optimizer.growth_rate), ("d0", optimizer.d0)):
        if without_d and value is not None:
            problems.append(
                f"optimizer.{key} must be null with optimizer={optimizer.name}, which has no d, "
                f"got {_shown(value)}"
            )
    if not without_d and optimizer.d0 is None:
        problems.append(f"optimizer.d0 must be > 0 with optimizer={optimizer.name}, got null")
    return problems


def _sampling_problems(sampling: SamplingConfig) -> list[str]:
    problems = _broken(sampling, SAMPLING_RULES, "sampling.")
    prompts, seeds = len(sampling.prompts.random), len(sampling.random_seeds)
    if prompts != seeds:
        problems.append(
            f"sampling.random_seeds must hold one seed for each of the {prompts} random prompts, "
            f"got {seeds}"
        )
    return problems


def _shown(value: object) -> str:
    return "null" if value is None else repr(value)
