"""From our settings to a TOML that sd-scripts reads as --config_file."""

import json
import math
from dataclasses import dataclass
from typing import Any

from lora_lab.config import TrainConfig
from lora_lab.kohya.choices import (
    OPTIMIZER_DEFAULTS,
    OPTIMIZER_TYPES,
    PRECISIONS,
    SAMPLERS,
    SCHEDULES,
)
from lora_lab.kohya.names import KOHYA_NAMES, PLAIN

Flat = dict[str, Any]
"""Our full key -> value."""


def flatten(tree: dict[str, Any], prefix: str = "") -> Flat:
    """Return nested settings under their full keys."""
    flat: Flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@dataclass(frozen=True)
class Places:
    """What an export must look up outside of the settings."""

    train_dir: str
    """The folder that holds the numbered folders of the training images."""
    reg_dir: str | None
    """The same of regularisation images, if there are any."""
    prediction_type: str | None
    """What the checkpoint predicts, where a LoRA file of the run tells it."""


def to_arguments(
    config: TrainConfig, flat: Flat, places: Places
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return sd-scripts' arguments, and what they can't say: our key -> why.

    Args:
        config: The settings.
        flat: The same under their full keys.
        places: Where the images are, and what the checkpoint predicts.
    """
    values: dict[str, Any] = {
        "pretrained_model_name_or_path": config.model.checkpoint,
        "train_data_dir": places.train_dir,
        "resolution": f"{config.data.resolution},{config.data.resolution}",
        "save_model_as": "safetensors",
        "cache_latents": True,
    }
    values |= {KOHYA_NAMES[key]: flat[key] for key in PLAIN if flat[key] is not None}
    _network(config, values)
    _rates(config, values)
    _optimizer(config, flat, values)
    warmup = config.schedule.warmup_share or config.schedule.warmup_steps
    constant = "constant_with_warmup" if warmup else "constant"
    values["lr_scheduler"] = (
        constant
        if config.schedule.name == "constant"
        else _name_of(SCHEDULES, config.schedule.name)
    )
    values["lr_warmup_steps"] = warmup
    if places.reg_dir is not None:
        values["reg_data_dir"] = places.reg_dir
    predicted = config.model.prediction_type or places.prediction_type
    values["v_parameterization"] = predicted == "v_prediction"
    values["no_half_vae"] = config.data.vae_precision == "float32"
    if config.data.resize_filter != "area":
        values["resize_interpolation"] = config.data.resize_filter
    values["save_every_n_epochs"] = max(1, round(config.save_every * config.epochs))
    _precision(config, values)
    _sampling(config, values)
    trackers = [
        name
        for name, on in (
            ("tensorboard", config.logger.tensorboard),
            ("wandb", config.logger.wandb.enabled),
        )
        if on
    ]
    if trackers:
        values["log_with"] = trackers[0] if len(trackers) == 1 else "all"
    return values, _unsaid(config, flat, places)


def _unsaid(config: TrainConfig, flat: Flat, places: Places) -> dict[str, str]:
    """What sd-scripts would do otherwise with these settings: our key -> why."""
    data, objective, trainer = config.data, config.objective, config.trainer
    half = {"bf16-mixed": "bfloat16", "16-mixed": "float16", "bf16-true": "bfloat16"}
    checks: tuple[tuple[str, bool, str], ...] = (
        ("model.checkpoint", config.model.checkpoint.startswith("embedded:"), "it ships with us"),
        (
            "model.prediction_type",
            not (config.model.prediction_type or places.prediction_type),
            "the checkpoint tells it here; add v_parameterization=true if it predicts v",
        ),
        ("data.trigger", data.trigger is not None, "captions must begin with it"),
        ("data.repeats", data.repeats is not None, "the folders' names must say it"),
        ("data.latents", data.latents == "mean", "sd-scripts draws a sample once and keeps it"),
        (
            "data.restore_mean",
            data.weighted_captions and data.restore_mean,
            "sd-scripts leaves the mean of weighted captions as it comes out",
        ),
        ("data.caption_lines", data.caption_lines == "all", "sd-scripts reads the first line"),
        (
            "data.vae_precision",
            data.vae_precision not in ("float32", half.get(trainer.precision)),
            "sd-scripts' VAE has 32 bits or those of mixed_precision",
        ),
        (
            "data.variants",
            data.variants > 1,
            "sd-scripts crops and colours anew each time, and can't cache latents then",
        ),
        ("optimizer.args", not all(map(_is_plain, config.optimizer.args.values())), "not plain"),
        ("objective.timestep_sampling", objective.timestep_sampling != "uniform", "uniform there"),
        ("objective.timestep_stratified", objective.timestep_stratified, "drawn one by one there"),
        (
            "trainer.lora_precision",
            trainer.precision == "bf16-true" and trainer.lora_precision == "32",
            "full_bf16 puts the LoRA into bf16, too: it is left out, mixed_precision=bf16",
        ),
        ("trainer.max_skipped_steps", trainer.max_skipped_steps > 0, "no step is left out there"),
    )
    return {key: f"{_shown(flat, key)}: {why}" for key, holds, why in checks if holds}


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str | list)


def _shown(flat: Flat, key: str) -> str:
    return "null" if flat.get(key) is None else str(flat[key])


def _name_of(table: dict[str, str], ours: str) -> str:
    """Kohya's name of one of our choices, the first of several."""
    return next((theirs for theirs, own in table.items() if own == ours), ours)


def _network(config: TrainConfig, values: dict[str, Any]) -> None:
    """The kind of LoRA with its arguments, merged LoRAs, regularisation, prediction."""
    network = config.network
    lycoris = network.name in ("loha", "lokr") or network.dora
    values["network_module"] = "lycoris.kohya" if lycoris else "networks.lora"
    arguments = [f"algo={network.name}"] if lycoris else []
    arguments += ["dora_wd=True", "wd_on_output=False"] if network.dora else []
    if network.rslora and lycoris:
        arguments.append("rs_lora=True")
    elif network.rslora:  # alpha / sqrt(dim) is sd-scripts' alpha / dim of another alpha
        values["network_alpha"] = network.alpha * math.sqrt(network.dim)
    arguments += [f"factor={network.factor}"] if network.name == "lokr" else []
    if network.conv_dim is not None:
        factor = math.sqrt(network.conv_dim) if network.rslora and not lycoris else 1
        alpha = (network.conv_alpha or 1) * factor
        arguments += [f"conv_dim={network.conv_dim}", f"conv_alpha={alpha}"]
    for key in ("rank_dropout", "module_dropout"):
        arguments += [f"{key}={value}"] if (value := getattr(network, key)) else []
    if arguments:
        values["network_args"] = arguments
    if config.model.merge:
        values["base_weights"] = [item.file for item in config.model.merge]
        values["base_weights_multiplier"] = [item.weight for item in config.model.merge]


def _rates(config: TrainConfig, values: dict[str, Any]) -> None:
    rate = config.optimizer.lr
    values["learning_rate"] = rate
    values["unet_lr"] = rate
    values["text_encoder_lr"] = rate * config.optimizer.text_encoder_lr
    values["network_train_unet_only"] = not config.network.train_text_encoder
    values["network_train_text_encoder_only"] = not config.network.train_unet


def _optimizer(config: TrainConfig, flat: Flat, values: dict[str, Any]) -> None:
    name = config.optimizer.name
    values["optimizer_type"] = config.optimizer._target_ or OPTIMIZER_TYPES.get(name, name)
    arguments = [f"{key}={value}" for key, value in config_args(flat).items()]
    named = {key for table in OPTIMIZER_DEFAULTS.values() for key in table}
    for argument in sorted(named) if name == "custom" else OPTIMIZER_DEFAULTS[name]:
        value = flat[f"optimizer.{argument}"]
        if value is not None:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            arguments.append(f"{argument}={text}")
    values["optimizer_args"] = arguments


def config_args(flat: Flat) -> dict[str, Any]:
    """Further arguments of the optimizer by name."""
    prefix = "optimizer.args."
    return {key.removeprefix(prefix): flat[key] for key in flat if key.startswith(prefix)}


def _precision(config: TrainConfig, values: dict[str, Any]) -> None:
    kind = _name_of(PRECISIONS, config.trainer.precision)
    full = kind.startswith("full_") and config.trainer.lora_precision == "bf16"
    values["mixed_precision"] = kind.removeprefix("full_")
    if full:
        values[kind] = True


def _sampling(config: TrainConfig, values: dict[str, Any]) -> None:
    sampling = config.sampling
    options = {
        "n": sampling.negative,
        "w": sampling.width,
        "h": sampling.height,
        "l": sampling.guidance,
        "s": sampling.steps,
        "d": sampling.seed,
    }
    told = " ".join(f"--{name} {value}" for name, value in options.items() if value != "")
    values["sample_prompts"] = f"{sampling.prompts.complex} {told}"
    values["sample_sampler"] = _name_of(SAMPLERS, sampling.sampler)


def toml_text(values: dict[str, Any], unsaid: dict[str, str], source: str) -> str:
    """The TOML file.

    Args:
        values: sd-scripts' arguments.
        unsaid: What it can't say: our key -> value and reason.
        source: What it was made from.
    """
    lines = [
        "# Settings of kohya's sd-scripts, written by LoRA Lab:",
        "#   accelerate launch --num_cpu_threads_per_process "
        f"{values.get('num_cpu_threads_per_process', 1)} train_network.py "
        "--config_file <this file>",
        f"# From {' '.join(source.split())}.",
    ]
    if unsaid:
        lines.append("# What sd-scripts can't be told, and does otherwise:")
        lines += [f"#   {key}={' '.join(why.split())}" for key, why in unsaid.items()]
    lines.append("")
    return "\n".join(lines + [f"{key} = {_toml(value)}" for key, value in values.items()]) + "\n"


def _toml(value: Any) -> str:
    """A value in TOML, of which JSON's texts, numbers, truth values and lists are a part."""
    return json.dumps(value, ensure_ascii=False)
