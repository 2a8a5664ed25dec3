"""Settings of kohya's that are named, counted or grouped in another way than ours."""

import math
import re
from pathlib import PurePosixPath
from typing import Any

from lora_lab.config.optimizer import TABLE as OPTIMIZERS
from lora_lab.kohya.choices import (
    OPTIMIZER_DEFAULTS,
    OPTIMIZER_TYPES,
    PRECISIONS,
    PREPRINT,
    SAMPLERS,
    SCHEDULES,
)
from lora_lab.kohya.special_network import take_merged, take_network
from lora_lab.kohya.translated import Translation, fitting
from lora_lab.kohya.values import (
    as_float,
    is_empty,
    is_number,
    is_true,
    named_arguments,
    number,
    parse,
)


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
    held = folder.parent if folder.name == "train" else folder
    result.put("data.dir", str(held), name)


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
    hidden = is_empty(given) and bool(str(given or "").strip())  # "<path>": there was one
    result.put("data.regularization", hidden or not is_empty(given), "reg_data_dir")
    if hidden:
        result.to_give["data.reg_dir"] = (
            "the folder of the regularisation images, which the file has as "
            f"{str(given).strip()}; without them set data.regularization=false"
        )
    else:
        result.put("data.reg_dir", None if is_empty(given) else str(given), "reg_data_dir")


def _images(left: dict[str, Any], result: Translation) -> None:
    """How images are made smaller, and which lines of a caption are read."""
    given = left.pop("resize_interpolation", None)
    name = "area" if is_empty(given) else str(parse(given)).lower()
    if name in ("none", "area", "lanczos", "lanczos4"):
        known = "lanczos" if name.startswith("lanczos") else "area"
        result.put("data.resize_filter", known, "resize_interpolation")
    else:
        result.impossible["resize_interpolation"] = f"{name}: LoRA Lab has area and lanczos"
    if is_true(left.get("enable_wildcard")):
        result.impossible["enable_wildcard"] = "captions have no wildcards here"
    left.pop("enable_wildcard", None)
    result.put("data.caption_lines", "first", "enable_wildcard")


def _rates(left: dict[str, Any], result: Translation) -> None:
    """One rate and the text encoder's share of it; a part without a rate has the common one."""
    common = number(left.pop("learning_rate", None), 2e-6)
    unet = number(left.pop("unet_lr", None), common)
    text = left.pop("text_encoder_lr", None)
    text = parse(text.strip().strip("[]")) if isinstance(text, str) else text
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
    if _plain(given) in ("dadaptation", "dadaptadampreprint"):
        _own_class(PREPRINT, arguments, result)
        return
    if name is None and "." in given:
        _own_class(given, arguments, result)
        return
    if name is None:
        result.impossible["optimizer_type"] = f"LoRA Lab doesn't have {given!r}"
        result.impossible["optimizer_args"] = "its optimizer isn't there"
        return
    if _plain(given) == "sgdnesterov":
        arguments = {"momentum": 0.9, **arguments, "nesterov": True}
    entry = OPTIMIZERS[name]
    arguments = {**entry.further, **arguments}
    if entry.further and arguments.get("warmup_init"):
        arguments["relative_step"] = True  # sd-scripts: the one needs the other
    result.groups["optimizer"] = name
    result.taken["optimizer_type"] = "optimizer"
    further = {}
    for argument, value in {**OPTIMIZER_DEFAULTS[name], **arguments}.items():
        key, source = f"optimizer.{argument}", f"optimizer_args: {argument}"
        if not re.fullmatch(r"[A-Za-z]\w*", argument, re.ASCII):
            result.impossible[source] = "no name of an argument"
        elif argument not in OPTIMIZER_DEFAULTS[name]:
            further[argument] = value
        elif argument == "growth_rate" and is_number(value) and math.isinf(as_float(value)):
            result.put(key, None, source)
        else:
            result.take(key, value, source)
    if further:
        result.put("optimizer.args", further, "optimizer_args")
    if further.get("relative_step"):
        for key in ("optimizer.lr", "optimizer.text_encoder_lr"):
            result.put(key, 1.0, "learning_rate")
        result.ignored["learning_rate"] = "with relative_step the optimizer finds its own rate"
        left["lr_scheduler"], left["lr_warmup_steps"] = "constant", 0
    if entry.constant_schedule:
        result.ignored["lr_scheduler"] = "a schedule-free optimizer has none, in sd-scripts, too"
        left["lr_scheduler"], left["lr_warmup_steps"] = "constant", 0


def _own_class(path: str, arguments: dict[str, Any], result: Translation) -> None:
    """A class that LoRA Lab has no name for: optimizer=custom, its arguments as they are."""
    result.groups["optimizer"] = "custom"
    if path == PREPRINT:
        result.put("optimizer._target_", path, "optimizer_type")
    else:
        result.to_give["optimizer._target_"] = (
            f"the file names the class {path}: give it if you trust the package, which is imported"
        )
        result.ignored["optimizer_type"] = "see optimizer._target_"
    settings = {f"optimizer.{key}" for table in OPTIMIZER_DEFAULTS.values() for key in table}
    further = {}
    for argument, value in arguments.items():
        key, source = f"optimizer.{argument}", f"optimizer_args: {argument}"
        if key not in settings:
            further[argument] = value
        else:
            result.take(key, value, source)
    if further:
        result.put("optimizer.args", further, "optimizer_args")


def _plain(optimizer: str) -> str:
    return optimizer.rsplit(".", 1)[-1].lower().replace("_", "")


def optimizer_name(given: str) -> str | None:
    """Our name of kohya's optimizer_type; None for one that we don't have."""
    known = {_plain(theirs): ours for ours, theirs in OPTIMIZER_TYPES.items()}
    others = {"sgdnesterov": "sgd"}
    return others.get(_plain(given), known.get(_plain(given)))


def _schedule(left: dict[str, Any], result: Translation) -> None:
    given = str(left.pop("lr_scheduler", None) or "constant")
    if given in SCHEDULES:
        result.groups["schedule"] = SCHEDULES[given]
        result.taken["lr_scheduler"] = "schedule"
    else:
        result.impossible["lr_scheduler"] = f"LoRA Lab doesn't have {given!r}"
    warmup = number(left.pop("lr_warmup_steps", None), 0)
    if given == "constant" and warmup:
        result.ignored["lr_warmup_steps"] = (
            f"{warmup:g}: sd-scripts refuses a warm-up with constant, the GUI leaves it out; "
            "constant_with_warmup has one"
        )
        warmup = 0
    if given == "polynomial":
        result.differs["lr_scheduler"] = "polynomial ends at 0, sd-scripts' at 1e-7"
    is_share = 0 < warmup < 1
    result.take("schedule.warmup_steps", 0 if is_share else warmup, "lr_warmup_steps")
    result.put("schedule.warmup_share", warmup if is_share else 0.0, "lr_warmup_steps")


def _noise(left: dict[str, Any], result: Translation) -> None:
    """The pyramid's discount is read with iterations only; prediction of v is the model's."""
    if not number(left.get("multires_noise_iterations"), 0):
        left.pop("multires_noise_discount", None)
    kind = "v_prediction" if is_true(left.pop("v_parameterization", None)) else None
    result.put("model.prediction_type", kind, "v_parameterization")
    gamma = number(left.get("min_snr_gamma"), 0)
    if gamma and is_true(left.get("debiased_estimation_loss")):
        left["debiased_estimation_loss"] = False
        result.impossible["debiased_estimation_loss"] = (
            "both it and min_snr_gamma weight the timesteps: min_snr_gamma is kept"
        )
    if gamma and is_true(left.get("zero_terminal_snr")):
        result.differs["zero_terminal_snr"] = (
            "min_snr_gamma weights by the SNR of the noise that is added, sd-scripts by that of "
            "the schedule before it was rescaled"
        )
    if number(left.get("noise_offset"), 0) and number(left.get("multires_noise_iterations"), 0):
        left["multires_noise_iterations"] = 0
        result.impossible["multires_noise_iterations"] = (
            "both it and noise_offset add coarse noise: noise_offset is kept"
        )
    if number(left.get("multires_noise_iterations"), 0):
        result.differs["multires_noise_iterations"] = (
            "each image's noise is scaled by its own deviation, in sd-scripts by its batch's"
        )
    if is_true(left.get("weighted_captions")):
        result.put("data.restore_mean", False, "weighted_captions")
    if number(left.get("gradient_accumulation_steps"), 1) > 1:
        result.differs["gradient_accumulation_steps"] = (
            "each image of a step counts the same; in sd-scripts each batch does, so that images "
            "of a bucket's incomplete batch count more"
        )
    if result.settings.get("network.module_dropout"):
        result.differs["network_args: module_dropout"] = (
            "a module that is left out has the gradient 0 and takes its optimizer's step; in "
            "sd-scripts it takes none"
        )


def _length(left: dict[str, Any], result: Translation) -> None:
    epochs = number(left.get("max_train_epochs"), 0)
    every = number(left.pop("save_every_n_epochs", None), 0)
    if epochs and every:
        result.put("save_every", round(min(1.0, every / epochs), 12), "save_every_n_epochs")
    else:
        result.put("save_every", 1.0, "save_every_n_epochs")
    steps = number(left.pop("max_train_steps", None), 0)
    if epochs:
        if steps:
            result.ignored["max_train_steps"] = "max_train_epochs goes before it"
        return
    left.pop("max_train_epochs", None)
    told = f"{steps:g} steps" if steps else "nothing, which sd-scripts takes for 1600 steps"
    result.ignored["max_train_steps"] = "runs are counted in epochs here: see epochs"
    result.to_give["epochs"] = (
        f"the file tells {told}: divide them by the steps an epoch (data_report=true tells them) "
        "and round up"
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
    rounds = full["bf16"] and result.groups.get("optimizer") == "prodigy"
    if rounds:
        result.impossible["full_bf16"] = (
            "LoRA weights in bf16 with Prodigy, which measures how far they moved: bf16 rounds "
            "that away; they stay in 32 bits"
        )
    bits = "bf16" if full["bf16"] and not rounds else "32"
    result.put("trainer.lora_precision", bits, "full_bf16")


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
    sampler = str(left.pop("sample_sampler", None) or "")
    if not sampler:
        result.ignored["sample_sampler"] = "not given: images only"
    elif sampler in SAMPLERS:
        result.put("sampling.sampler", SAMPLERS[sampler], "sample_sampler")
    else:
        result.ignored["sample_sampler"] = f"LoRA Lab doesn't have {sampler!r}; images only"
    given = left.pop("sample_prompts", None)
    lines = [
        line.strip()
        for line in str(given or "").splitlines()
        if line.strip() and not line.strip().startswith("#")  # a comment, in sd-scripts, too
    ]
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
    further = [_OPTION.split(" " + line) for line in lines[1:]]
    if further:
        given_seeds = [
            parse(dict(zip(parts[1::2], parts[2::2], strict=True)).get("d")) for parts in further
        ]
        seeds = [
            seed if isinstance(seed, int) else 1000 + index
            for index, seed in enumerate(given_seeds)
        ]
        result.put(
            "sampling.prompts.random", [parts[0].strip() for parts in further], "sample_prompts"
        )
        result.put("sampling.random_seeds", seeds, "sample_prompts")


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
    _images,
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
