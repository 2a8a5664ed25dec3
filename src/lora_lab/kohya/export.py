"""From our settings to a TOML that sd-scripts reads as --config_file."""

import json
from typing import Any

from lora_lab.config import TrainConfig
from lora_lab.kohya.choices import (
    OPTIMIZER_DEFAULTS,
    OPTIMIZER_TYPES,
    PRECISIONS,
    SAMPLERS,
    SCHEDULES,
)
from lora_lab.kohya.names import KOHYA_NAMES, NONE, PLAIN

Flat = dict[str, Any]
"""Our full key -> value."""


def flatten(tree: dict[str, Any], prefix: str = "") -> Flat:
    """Returns nested settings under their full keys."""
    flat: Flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def to_arguments(config: TrainConfig, flat: Flat) -> tuple[dict[str, Any], list[str]]:
    """Returns sd-scripts' arguments, and our keys that kohya's trainer has nothing for.

    Args:
        config: the settings.
        flat: the same under their full keys.
    """
    values: dict[str, Any] = {
        "pretrained_model_name_or_path": config.model.checkpoint,
        "train_data_dir": f"{config.data.dir.rstrip('/')}/train",
        "resolution": f"{config.data.resolution},{config.data.resolution}",
        "save_model_as": "safetensors",
        "cache_latents": True,
    }
    values |= {KOHYA_NAMES[key]: flat[key] for key in PLAIN if flat[key] is not None}
    _network(config, values)
    _rates(config, values)
    _optimizer(config, flat, values)
    values["lr_scheduler"] = _name_of(SCHEDULES, config.schedule.name)
    values["lr_warmup_steps"] = config.schedule.warmup_share or config.schedule.warmup_steps
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
    return values, [key for key in flat if KOHYA_NAMES.get(key, NONE) == NONE]


def _name_of(table: dict[str, str], ours: str) -> str:
    """Kohya's name of one of our choices, the first of several."""
    return next((theirs for theirs, own in table.items() if own == ours), ours)


def _network(config: TrainConfig, values: dict[str, Any]) -> None:
    """The kind of LoRA with its arguments, merged LoRAs, regularisation, prediction."""
    network = config.network
    lycoris = network.name in ("loha", "lokr")
    values["network_module"] = "lycoris.kohya" if lycoris else "networks.lora"
    arguments = [f"algo={network.name}"] if lycoris else []
    arguments += [f"factor={network.factor}"] if network.name == "lokr" else []
    if network.conv_dim is not None:
        arguments += [f"conv_dim={network.conv_dim}", f"conv_alpha={network.conv_alpha}"]
    for key in ("rank_dropout", "module_dropout"):
        arguments += [f"{key}={value}"] if (value := getattr(network, key)) else []
    if arguments:
        values["network_args"] = arguments
    if config.model.merge:
        values["base_weights"] = [item.file for item in config.model.merge]
        values["base_weights_multiplier"] = [item.weight for item in config.model.merge]
    if config.data.regularization and config.data.reg_dir is not None:
        values["reg_data_dir"] = config.data.reg_dir
    values["v_parameterization"] = config.model.prediction_type == "v_prediction"


def _rates(config: TrainConfig, values: dict[str, Any]) -> None:
    rate = config.optimizer.lr
    values["learning_rate"] = rate
    values["unet_lr"] = rate
    values["text_encoder_lr"] = rate * config.optimizer.text_encoder_lr
    values["network_train_unet_only"] = not config.network.train_text_encoder
    values["network_train_text_encoder_only"] = not config.network.train_unet


def _optimizer(config: TrainConfig, flat: Flat, values: dict[str, Any]) -> None:
    name = config.optimizer.name
    values["optimizer_type"] = OPTIMIZER_TYPES.get(name, name)
    arguments = [f"{key}={value}" for key, value in config_args(flat).items()]
    for argument in OPTIMIZER_DEFAULTS.get(name, {}):
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
    full = kind.startswith("full_")
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


def toml_text(values: dict[str, Any], unknown: list[str], source: str) -> str:
    """The TOML file.

    Args:
        values: sd-scripts' arguments.
        unknown: our keys that are not in it.
        source: what it was made from.
    """
    lines = [
        "# Settings of kohya's sd-scripts, written by LoRA Lab:",
        "#   accelerate launch --num_cpu_threads_per_process "
        f"{values.get('num_cpu_threads_per_process', 1)} train_network.py "
        "--config_file <this file>",
        f"# From {' '.join(source.split())}. kohya has nothing for: "
        f"{', '.join(unknown) or 'none'}.",
        "",
    ]
    return "\n".join(lines + [f"{key} = {_toml(value)}" for key, value in values.items()]) + "\n"


def _toml(value: Any) -> str:
    """A value in TOML, of which JSON's texts, numbers, truth values and lists are a part."""
    return json.dumps(value, ensure_ascii=False)
