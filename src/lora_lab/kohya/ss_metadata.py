"""From the `ss_*` metadata of a LoRA file to sd-scripts' arguments."""

from dataclasses import dataclass
from typing import Any

from lora_lab.files import parse_json
from lora_lab.kohya.own_fields import PATHS, PATHS_GIVEN, SETTINGS
from lora_lab.kohya.values import split_arguments

RENAMED = {
    "ss_num_epochs": "max_train_epochs",
    "ss_batch_size_per_device": "train_batch_size",
    "ss_debiased_estimation": "debiased_estimation_loss",
}
SAME = (
    "network_module",
    "network_dim",
    "network_alpha",
    "learning_rate",
    "unet_lr",
    "text_encoder_lr",
    "lr_scheduler",
    "lr_warmup_steps",
    "max_grad_norm",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "mixed_precision",
    "full_fp16",
    "full_bf16",
    "clip_skip",
    "noise_offset",
    "noise_offset_random_strength",
    "multires_noise_iterations",
    "multires_noise_discount",
    "adaptive_noise_scale",
    "ip_noise_gamma",
    "min_snr_gamma",
    "zero_terminal_snr",
    "loss_type",
    "huber_schedule",
    "huber_scale",
    "huber_c",
    "scale_weight_norms",
    "prior_loss_weight",
    "seed",
    "output_name",
    "resolution",
    "shuffle_caption",
    "keep_tokens",
    "flip_aug",
    "color_aug",
    "random_crop",
    "enable_bucket",
    "bucket_no_upscale",
    "min_bucket_reso",
    "max_bucket_reso",
    "max_token_length",
    "caption_dropout_rate",
    "caption_dropout_every_n_epochs",
    "caption_tag_dropout_rate",
    "face_crop_aug_range",
    "training_comment",
    "network_dropout",
    "v2",
    "cache_latents",
    "resize_interpolation",
    "ip_noise_gamma_random_strength",
    "fp8_base",
    "fp8_base_unet",
    "lowram",
)
"""Metadata that is an argument with `ss_` in front."""


UNTOLD = (
    *("caption_extension", "bucket_reso_steps", "weighted_captions", "masked_loss"),
    *("lr_scheduler_num_cycles", "lr_scheduler_power", "lr_scheduler_timescale"),
    *("min_timestep", "max_timestep", "full_bf16", "no_half_vae", "enable_wildcard"),
)
"""Settings that sd-scripts writes into no LoRA file."""


@dataclass(frozen=True)
class OwnSettings:
    """What a LoRA file of ours tells in our own words."""

    settings: dict[str, Any]
    """Our key -> value; empty for a file of another trainer."""
    to_give: dict[str, str]
    """Our key whose path stays private -> why it has to be given."""


def own_settings(metadata: dict[str, str]) -> OwnSettings:
    """Return our own fields of a LoRA file.

    Args:
        metadata: All keys of the file.
    """
    paths = [key for key in _listed(metadata.get(PATHS_GIVEN, "[]")) if key in PATHS]
    why = "the file tells that there was one, and no path of another machine"
    to_give = {str(key): why for key in paths}
    if metadata.get("ss_sd_model_name", "None") != "None":
        name = metadata["ss_sd_model_name"]
        to_give["model.checkpoint"] = f"the file names {name!r} without its folder"
    return OwnSettings(_mapping(metadata.get(SETTINGS, "{}")), to_give)


def from_metadata(metadata: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return sd-scripts' arguments and what was ignored, each with its reason.

    Args:
        metadata: All keys of the file; values are texts, "None" where there is none.
    """
    texts = {**_of_the_data_set(metadata), **metadata}
    values: dict[str, Any] = {}
    ignored: dict[str, str] = {}
    for key, text in texts.items():
        name = RENAMED.get(key, key.removeprefix("ss_"))
        if key == "ss_optimizer":
            kind, arguments = split_arguments(text)
            values["optimizer_type"], values["optimizer_args"] = kind, arguments
        elif key == "ss_network_args":
            values["network_args"] = [f"{k}={v}" for k, v in _mapping(text).items()]
        elif key == "ss_base_model_version":
            values["v_parameterization"] = text.endswith("_v")
        elif key == "ss_sd_model_name":
            ignored[key] = "a name without its folder: see model.checkpoint"
        elif key in (SETTINGS, PATHS_GIVEN):
            continue
        elif key in RENAMED or (key.startswith("ss_") and name in SAME):
            if text != "None":
                values[name] = text
        else:
            ignored[key] = "describes the file or the data, it is no setting"
    if "unet_lr" in values and texts.get("ss_text_encoder_lr") == "None":
        values["network_train_unet_only"] = True
    if "text_encoder_lr" in values and texts.get("ss_unet_lr") == "None":
        values["network_train_text_encoder_only"] = True
    if len(_mapping(texts.get("ss_reg_dataset_dirs", "{}"))):
        values["reg_data_dir"] = "<told by the file without its path>"
    return values, ignored


def _listed(text: str) -> list[Any]:
    try:
        found = parse_json(text)
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def _mapping(text: str) -> dict[str, Any]:
    try:
        found = parse_json(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _of_the_data_set(metadata: dict[str, str]) -> dict[str, str]:
    """What newer files say of their first data set only, under the older names."""
    try:
        first = parse_json(metadata.get("ss_datasets", "[]"))[0]
        subset = (first.get("subsets") or [{}])[0]
    except (ValueError, LookupError, AttributeError, TypeError):
        return {}
    named = {**subset, **first} if isinstance(first, dict) and isinstance(subset, dict) else {}
    wanted = (*SAME, "batch_size_per_device")
    return {f"ss_{key}": str(value) for key, value in named.items() if key in wanted}
