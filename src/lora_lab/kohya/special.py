"""Settings of kohya's that are named, counted or grouped in another way than ours."""

import math
import re
from pathlib import PurePosixPath
from typing import Any

from lora_lab.kohya.choices import (
    OPTIMIZER_DEFAULTS,
    OPTIMIZER_TYPES,
    PRECISIONS,
    SAMPLERS,
    SCHEDULES,
)
from lora_lab.kohya.special_network import take_merged, take_network
from lora_lab.kohya.translated import Translation, fitting
from lora_lab.kohya.values import is_empty, is_true, named_arguments, number, parse


def _model(left: dict[str, Any], result: Translation) -> None:
    result.groups["model"] = "sd15"
    name = "pretrained_model_name_or_path"
    given = left.pop(name, None)
    if is_empty(given):
        result.to_give["model.checkpoint"] = "the file doesn't tell the path of the base checkpoint"
        result.ignored[name] = "not given"
    else:
        result.put("model.checkpoint", str(given), name)


def _data(left: dict[str, Any], result: Translation) -> None:
    result.groups["data"] = "folder"
    name = "train_data_dir"
    given = left.pop(name, None)
    if is_empty(given):
        result.to_give["data.dir"] = "the file doesn't tell the folder of the images"
        result.ignored[name] = "not given"
        return
    folder = PurePosixPath(str(given).replace("\\", "/"))
    if folder.name == "train":
        result.put("data.dir", str(folder.parent), name)
    else:
        result.to_give["data.dir"] = (
            f"the folder that holds train/, which is what {folder} has to be called here"
        )
        result.ignored[name] = "the folder of the images is called train/ here: see data.dir"


def _resolution(left: dict[str, Any], result: Translation) -> None:
    given = left.pop("resolution", None)
    sides = parse(given) if not is_empty(given) else 512
    sides = sides if isinstance(sides, list) else [sides]
    if len(set(sides)) == 1 and isinstance(sides[0], int):
        result.put("data.resolution", sides[0], "resolution")
    else:
        result.impossible["resolution"] = f"{given!r}: data.resolution is the side of a square"


def _regularisation(left: dict[str, Any], result: Translation) -> None:
    given = left.pop("reg_data_dir", None)
    result.put("data.regularization", not is_empty(given), "reg_data_dir")
    result.put("data.reg_dir", None if is_empty(given) else str(given), "reg_data_dir")


def _rates(left: dict[str, Any], result: Translation) -> None:
    """One rate and the text encoder's share of it; a part without a rate has the common one."""
    common = number(left.pop("learning_rate", None), 2e-6)
    unet = number(left.pop("unet_lr", None), common)
    text = left.pop("text_encoder_lr", None)
    text = text[0] if isinstance(text, list) and text else text
    encoder = number(text, common)
    if unet == 0 and result.settings["network.train_text_encoder"]:
        result.put("network.train_unet", False, "unet_lr")
        unet = encoder
    if encoder == 0:
        result.put("network.train_text_encoder", False, "text_encoder_lr")
    if not result.settings["network.train_unet"]:
        unet = encoder
    result.put("optimizer.lr", unet, "unet_lr")
    trained = result.settings["network.train_text_encoder"] and unet
    result.put("optimizer.text_encoder_lr", encoder / unet if trained else 1.0, "text_encoder_lr")
    result.ignored["learning_rate"] = "the rates of UNet and text encoder say it"


def _optimizer(left: dict[str, Any], result: Translation) -> None:
    given = str(left.pop("optimizer_type", None) or "AdamW")
    arguments = named_arguments(left.pop("optimizer_args", None))
    name = optimizer_name(given)
    if name is None:
        result.impossible["optimizer_type"] = f"LoRA Lab doesn't have {given!r}"
        result.impossible["optimizer_args"] = "its optimizer isn't there"
        return
    if _plain(given) == "sgdnesterov":
        arguments["nesterov"] = True
    result.groups["optimizer"] = name
    result.taken["optimizer_type"] = "optimizer"
    further = {}
    for argument, value in {**OPTIMIZER_DEFAULTS[name], **arguments}.items():
        key, source = f"optimizer.{argument}", f"optimizer_args: {argument}"
        if not re.fullmatch(r"[A-Za-z]\w*", argument, re.ASCII):
            result.impossible[source] = "no name of an argument"
        elif argument not in OPTIMIZER_DEFAULTS[name]:
            further[argument] = value
        elif argument == "growth_rate" and (value is None or math.isinf(float(str(value)))):
            result.put(key, None, source)
        elif isinstance(value, list):
            result.put(key, [float(item) for item in value], source)
        else:
            result.put(key, fitting(value, key), source)
    if further:
        result.put("optimizer.args", further, "optimizer_args")


def _plain(optimizer: str) -> str:
    return optimizer.rsplit(".", 1)[-1].lower().replace("_", "")


def optimizer_name(given: str) -> str | None:
    """Our name of kohya's optimizer_type; None for one that we don't have."""
    known = {_plain(theirs): ours for ours, theirs in OPTIMIZER_TYPES.items()}
    others = {"dadaptation": "dadapt_adam", "sgdnesterov": "sgd"}
    return others.get(_plain(given), known.get(_plain(given)))


def _schedule(left: dict[str, Any], result: Translation) -> None:
    given = str(left.pop("lr_scheduler", None) or "constant")
    if given in SCHEDULES:
        result.groups["schedule"] = SCHEDULES[given]
        result.taken["lr_scheduler"] = "schedule"
    else:
        result.impossible["lr_scheduler"] = f"LoRA Lab doesn't have {given!r}"
    warmup = number(left.pop("lr_warmup_steps", None), 0)
    is_share = 0 < warmup < 1
    result.put("schedule.warmup_steps", 0 if is_share else int(warmup), "lr_warmup_steps")
    result.put("schedule.warmup_share", warmup if is_share else 0.0, "lr_warmup_steps")


def _noise(left: dict[str, Any], result: Translation) -> None:
    """The pyramid's discount is read with iterations only; prediction of v is the model's."""
    if not number(left.get("multires_noise_iterations"), 0):
        left.pop("multires_noise_discount", None)
    kind = "v_prediction" if is_true(left.pop("v_parameterization", None)) else None
    result.put("model.prediction_type", kind, "v_parameterization")


def _length(left: dict[str, Any], result: Translation) -> None:
    epochs = number(left.get("max_train_epochs"), 0)
    every = number(left.pop("save_every_n_epochs", None), 0)
    if epochs and every:
        result.put("save_every", round(min(1.0, every / epochs), 12), "save_every_n_epochs")
    else:
        result.put("save_every", 1.0, "save_every_n_epochs")
    steps = number(left.pop("max_train_steps", None), 0)
    if not steps:
        return
    if epochs:
        result.ignored["max_train_steps"] = "max_train_epochs goes before it"
    else:
        result.impossible["max_train_steps"] = (
            f"{steps:g} steps: set epochs, which are counted here"
        )


def _precision(left: dict[str, Any], result: Translation) -> None:
    given = left.pop("mixed_precision", None)
    kind = "no" if is_empty(given) else str(given)
    full = {name: is_true(left.pop(f"full_{name}", None)) for name in ("bf16", "fp16")}
    if full["bf16"]:
        kind = "full_bf16"
    if full["fp16"]:
        result.impossible["full_fp16"] = (
            "LoRA weights in fp16: D-Adaptation's d stays at its start for ever, in silence; "
            "taken as mixed_precision=fp16, which keeps them in 32 bits"
        )
    if kind in PRECISIONS:
        result.put("trainer.precision", PRECISIONS[kind], "mixed_precision")
    else:
        result.impossible["mixed_precision"] = f"LoRA Lab doesn't have {kind!r}"
    result.put("trainer.lora_precision", "bf16" if full["bf16"] else "32", "full_bf16")


def _loggers(left: dict[str, Any], result: Translation) -> None:
    kind = str(left.pop("log_with", None) or "")
    result.put("logger.wandb.enabled", kind in ("wandb", "all"), "log_with")
    result.put("logger.tensorboard", kind in ("tensorboard", "all"), "log_with")


_OPTION = re.compile(r"\s--([a-z]+)\s+")
_OPTIONS = {
    "n": "sampling.negative",
    "w": "sampling.width",
    "h": "sampling.height",
    "d": "sampling.seed",
    "l": "sampling.guidance",
    "s": "sampling.steps",
}


def _sampling(left: dict[str, Any], result: Translation) -> None:
    """The first sample prompt with its options, as the grids' complex prompt."""
    result.groups["sampling"] = "sd15"
    sampler = str(left.pop("sample_sampler", None) or "ddim")
    if sampler in SAMPLERS:
        result.put("sampling.sampler", SAMPLERS[sampler], "sample_sampler")
    else:
        result.ignored["sample_sampler"] = f"LoRA Lab doesn't have {sampler!r}; images only"
    given = left.pop("sample_prompts", None)
    lines = str(given or "").strip().splitlines()
    if is_empty(given) or not lines or lines[0].endswith((".txt", ".toml", ".json")):
        result.ignored["sample_prompts"] = "no prompt in it"
        return
    text, *options = _OPTION.split(" " + lines[0])
    result.put("sampling.prompts.complex", text.strip(), "sample_prompts")
    for option, value in zip(options[::2], options[1::2], strict=True):
        source = f"sample_prompts: --{option}"
        key = _OPTIONS.get(option)
        fitted = fitting(parse(value) if option != "n" else value.strip(), key) if key else None
        if key is None or fitted is None:
            result.ignored[source] = f"no setting of the grids, got {value.strip()!r}"
        else:
            result.put(key, fitted, source)
    if len(lines) > 1:
        result.ignored["sample_prompts: further lines"] = "the grids have prompts of their own"


def _clip_skip_of_images(left: dict[str, Any], result: Translation) -> None:
    """Images are drawn at the layer that was trained."""
    given = left.get("clip_skip")
    value = fitting(1 if is_empty(given) else parse(given), "sampling.clip_skip")
    if value is not None:
        result.settings["sampling.clip_skip"] = value


HANDLERS = (
    _model,
    take_merged,
    _data,
    _regularisation,
    _resolution,
    take_network,
    _rates,
    _optimizer,
    _schedule,
    _noise,
    _length,
    _precision,
    _loggers,
    _sampling,
    _clip_skip_of_images,
)
