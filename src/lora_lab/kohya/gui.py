"""From the fields of the kohya_ss GUI to sd-scripts' arguments, as the GUI's own command does."""

from typing import Any

from lora_lab.kohya.values import split_words

RENAMED = {
    "optimizer": "optimizer_type",
    "max_resolution": "resolution",
    "lora_network_weights": "network_weights",
    "num_cpu_threads_per_process": "num_cpu_threads_per_process",
    "stop_text_encoder_training": "stop_text_encoder_training",
    "v_pred_like_loss": "v_pred_like_loss",
}
MODULES = {
    "Standard": ("networks.lora", None),
    "Kohya LoCon": ("networks.lora", None),
    "LyCORIS/LoCon": ("lycoris.kohya", "locon"),
    "LyCORIS/LoHa": ("lycoris.kohya", "loha"),
    "LyCORIS/LoKr": ("lycoris.kohya", "lokr"),
    "Kohya DyLoRA": ("networks.dylora", None),
    "LoRA-FA": ("networks.lora_fa", None),
    "LyCORIS/iA3": ("lycoris.kohya", "ia3"),
    "LyCORIS/DyLoRA": ("lycoris.kohya", "dylora"),
    "LyCORIS/BOFT": ("lycoris.kohya", "boft"),
    "LyCORIS/Diag-OFT": ("lycoris.kohya", "diag-oft"),
    "LyCORIS/GLoRA": ("lycoris.kohya", "glora"),
    "LyCORIS/Native Fine-Tuning": ("lycoris.kohya", "full"),
}
ONLY_LYCORIS = ("decompose_both", "factor", "train_on_input", "unit", "use_cp")
CONVOLUTION = ("conv_dim", "conv_alpha")
ONLY_BLOCKS = ("conv_block_alphas", "conv_block_dims")
GUI_ONLY = {
    "model_list": "a choice in the GUI; the path beside it counts",
    "sdxl_cache_text_encoder_outputs": "read for SDXL only",
    "sdxl_no_half_vae": "read for SDXL only",
    "train_data_dir_list": "a list in the GUI",
    "dataset_config_list": "a list in the GUI",
}
"""Fields that the GUI keeps for itself for a training of Stable Diffusion 1.5."""


def from_gui(tree: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return sd-scripts' arguments and what was ignored, each with its reason.

    Args:
        tree: The settings that the GUI saved.

    Raises:
        ConfigError: A quote is open in the optimizer's arguments.
    """
    fields = dict(tree)
    ignored = {
        name: reason for name, reason in GUI_ONLY.items() if fields.pop(name, None) is not None
    }
    values: dict[str, Any] = {}
    ignored |= _network(fields, values)
    ignored |= _noise(fields)
    _rates(fields, values)
    _length(fields, values)
    arguments = str(fields.pop("optimizer_args", "") or "")
    values["optimizer_args"] = split_words(arguments.replace('"', ""), "optimizer_args")
    if fields.pop("use_wandb", False):
        values["log_with"] = "wandb"
    for name, value in fields.items():
        values[RENAMED.get(name, name)] = value
    return values, ignored


def _network(fields: dict[str, Any], values: dict[str, Any]) -> dict[str, str]:
    """The kind of LoRA with the arguments that it reads; returns those it doesn't."""
    kind = str(fields.pop("LoRA_type", "Standard"))
    module, algorithm = MODULES.get(kind, (kind, None))
    values["network_module"] = module
    arguments = [f"algo={algorithm}"] if algorithm else []
    ignored = {}
    for name in CONVOLUTION + ONLY_LYCORIS + ONLY_BLOCKS:
        if name not in fields:
            continue
        value = fields.pop(name)
        reads = (kind != "Standard" and name in CONVOLUTION) or (
            algorithm == "lokr" and name == "factor"
        )
        if reads and value not in ("", None):
            arguments.append(f"{name}={value}")
        elif algorithm and name in ONLY_LYCORIS and value not in (False, "", -1, 1):
            values[name] = value
        else:
            ignored[name] = f"LoRA_type={kind} doesn't read it"
    if algorithm and fields.pop("dora_wd", False):
        arguments.append("dora_wd=True")
    values["network_args"] = arguments
    return ignored


def _noise(fields: dict[str, Any]) -> dict[str, str]:
    """The GUI passes on either the noise offset or the pyramid, by noise_offset_type."""
    kind = str(fields.pop("noise_offset_type", "Original"))
    unread = (
        ("multires_noise_iterations", "multires_noise_discount")
        if kind == "Original"
        else ("noise_offset", "adaptive_noise_scale")
    )
    ignored = {"noise_offset_type": f"{kind}: decides which of the noise settings are read"}
    for name in unread:
        if fields.pop(name, None) is not None:
            ignored[name] = f"noise_offset_type={kind} doesn't read it"
    return ignored


def _rates(fields: dict[str, Any], values: dict[str, Any]) -> None:
    """A rate of 0 stands for a part that isn't trained; both 0 for the common rate."""
    text, unet = (_number(fields.pop(name, 0)) for name in ("text_encoder_lr", "unet_lr"))
    if text and unet:
        values.update(text_encoder_lr=text, unet_lr=unet)
    elif unet:
        values.update(unet_lr=unet, network_train_unet_only=True)
    elif text:
        values.update(text_encoder_lr=text, network_train_text_encoder_only=True)


def _length(fields: dict[str, Any], values: dict[str, Any]) -> None:
    """The GUI counts by `epoch` unless max_train_epochs or max_train_steps is given.

    Without a number of cycles it restarts once an epoch; a number of warm-up steps goes before
    their percentage.
    """
    epoch = fields.pop("epoch", None)
    steps = _number(fields.get("max_train_steps"))
    if not _number(fields.get("max_train_epochs")):  # 0 and "" both mean: no override
        fields.pop("max_train_epochs", None)
        values["max_train_epochs"] = None if steps else epoch
    if fields.get("lr_scheduler_num_cycles") in ("", None):
        fields.pop("lr_scheduler_num_cycles", None)
        values["lr_scheduler_num_cycles"] = epoch
    percent, given = (_number(fields.pop(name, 0)) for name in ("lr_warmup", "lr_warmup_steps"))
    values["lr_warmup_steps"] = given if given else percent / 100 if percent else 0


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0
