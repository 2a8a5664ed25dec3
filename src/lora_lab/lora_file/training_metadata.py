"""What a LoRA file tells of its training, as sd-scripts writes it.

A1111, ComfyUI and Civitai read this metadata; its values are all strings.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lora_lab.checkpoint.families.sd15 import SD15
from lora_lab.config import TrainConfig
from lora_lab.kohya.own_fields import PATHS, PATHS_GIVEN, SETTINGS, told_keys

ALWAYS = ("model.checkpoint", "data.dir", "data.cache_dir")
"""Settings with a path that every run has, or that doesn't change a LoRA."""
MIXED_PRECISION = {"32-true": "no", "bf16-mixed": "bf16", "16-mixed": "fp16", "bf16-true": "bf16"}
"""trainer.precision -> kohya's mixed_precision."""
PREDICTION_TYPES = {"epsilon": "epsilon", "v_prediction": "v"}
"""As modelspec spells them."""


@dataclass(frozen=True)
class TrainingFacts:
    """What a LoRA file tells about its training that no config key holds."""

    step: int
    """Steps done, from 1."""
    total_steps: int
    epoch: int
    """Epochs begun, from 1."""
    batches_per_epoch: int
    image_counts: dict[str, tuple[int, int]]
    """Folder name -> (repeats, number of images)."""
    reg_image_counts: dict[str, tuple[int, int]]
    """The same of regularisation images."""
    tag_frequency: dict[str, dict[str, int]]
    """Folder name -> comma-separated part of the captions -> how many images have it."""
    bucket_counts: dict[tuple[int, int], int]
    """(width, height) in pixels -> images times repeats."""
    bucket_limits: tuple[int, int] | None
    """Shortest and longest side of a bucket; None without buckets, or with one for each image."""
    mean_aspect_error: float
    """Mean distance of the images' width / height from that of their buckets."""
    optimizer: str
    """Class and arguments, such as ``torch.optim.adamw.AdamW(weight_decay=0.01)``."""
    network: dict[str, Any]
    """`ss_network_*` of the network."""
    prediction_type: str
    """epsilon or v_prediction."""
    checkpoint_name: str
    checkpoint_sha256: str | None
    """Of a single-file checkpoint; None for a folder."""
    checkpoint_legacy_hash: str | None
    started_at: float
    """Unix time in seconds."""
    finished_at: float
    session_id: int


def build_metadata(config: TrainConfig, facts: TrainingFacts) -> dict[str, str]:
    """The metadata of a LoRA file, without hashes.

    Args:
        config: What was asked for. Paths and loggers are left out: they name the user's machine.
        facts: What came of it.

    Returns:
        All values as strings, "None" where there is no value, as sd-scripts writes them.
    """
    values = {**_training(config, facts), **_data(config, facts), **_modelspec(config, facts)}
    values[SETTINGS] = told_settings(config)
    values[PATHS_GIVEN] = [key for key in PATHS if key not in ALWAYS and value_of(config, key)]
    return {key: _text(value) for key, value in values.items()}


def _text(value: Any) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _training(config: TrainConfig, facts: TrainingFacts) -> dict[str, Any]:
    """sd-scripts' arguments as it spells them; None for one that is off or isn't there."""
    optimizer, network, trainer = config.optimizer, config.network, config.trainer
    warmup = config.schedule.warmup_steps or config.schedule.warmup_share or 0
    return {
        "ss_base_model_version": config.model.name
        + ("_v" if facts.prediction_type == "v_prediction" else ""),
        "ss_v2": False,
        "ss_sd_model_name": facts.checkpoint_name,
        "ss_sd_model_hash": facts.checkpoint_legacy_hash,
        "ss_new_sd_model_hash": facts.checkpoint_sha256,
        **facts.network,
        "ss_learning_rate": optimizer.lr,
        "ss_unet_lr": optimizer.lr if network.train_unet else None,
        "ss_text_encoder_lr": (
            optimizer.lr * optimizer.text_encoder_lr if network.train_text_encoder else None
        ),
        "ss_optimizer": facts.optimizer,
        "ss_lr_scheduler": _schedule_name(config.schedule.name, warmup),
        "ss_lr_warmup_steps": warmup,
        "ss_max_grad_norm": trainer.gradient_clip_val,
        "ss_scale_weight_norms": None,
        "ss_gradient_checkpointing": trainer.gradient_checkpointing,
        "ss_gradient_accumulation_steps": trainer.accumulate_grad_batches,
        "ss_mixed_precision": MIXED_PRECISION[trainer.precision],
        "ss_full_fp16": False,
        "ss_fp8_base": False,
        "ss_fp8_base_unet": False,
        "ss_lowram": False,
        "ss_clip_skip": config.model.clip_skip,
        **_objective(config),
        "ss_seed": config.seed,
        "ss_steps": facts.step,
        "ss_max_train_steps": facts.total_steps,
        "ss_epoch": facts.epoch,
        "ss_num_epochs": config.epochs,
        "ss_validation_seed": None,
        "ss_validation_split": 0.0,
        "ss_validate_every_n_epochs": None,
        "ss_validate_every_n_steps": None,
        "ss_max_validation_steps": None,
        "ss_output_name": config.output_name,
        "ss_training_comment": None,
        "ss_sd_scripts_commit_hash": "(unknown)",
        "ss_training_started_at": facts.started_at,
        "ss_training_finished_at": facts.finished_at,
        "ss_session_id": facts.session_id,
    }


def _schedule_name(ours: str, warmup: float) -> str:
    """sd-scripts' constant takes no warm-up: the one with it has a name of its own."""
    return "constant_with_warmup" if ours == "constant" and warmup else ours


def _objective(config: TrainConfig) -> dict[str, Any]:
    objective = config.objective
    return {
        "ss_noise_offset": objective.noise_offset or None,
        "ss_noise_offset_random_strength": objective.noise_offset_random,
        "ss_adaptive_noise_scale": None,
        "ss_multires_noise_iterations": objective.multires_noise_iterations or None,
        "ss_multires_noise_discount": objective.multires_noise_discount,
        "ss_ip_noise_gamma": objective.ip_noise_gamma or None,
        "ss_ip_noise_gamma_random_strength": False,
        "ss_min_snr_gamma": objective.min_snr_gamma or None,
        "ss_debiased_estimation": objective.debiased_estimation,
        "ss_zero_terminal_snr": objective.zero_terminal_snr,
        "ss_loss_type": objective.loss_type,
        "ss_huber_schedule": objective.huber_schedule,
        "ss_huber_scale": 1.0,
        "ss_huber_c": objective.huber_c,
        "ss_prior_loss_weight": config.data.prior_loss_weight,
    }


def _data(config: TrainConfig, facts: TrainingFacts) -> dict[str, Any]:
    data = config.data
    buckets = {
        str(index): {"resolution": list(size), "count": count}
        for index, (size, count) in enumerate(sorted(facts.bucket_counts.items()))
    }
    information = {"buckets": buckets, "mean_img_ar_error": facts.mean_aspect_error}
    least, most = facts.bucket_limits or (None, None)
    return {
        "ss_resolution": f"({data.resolution}, {data.resolution})",
        "ss_resize_interpolation": None if data.resize_filter == "area" else data.resize_filter,
        "ss_enable_bucket": data.enable_bucket,
        "ss_bucket_no_upscale": data.bucket_no_upscale,
        "ss_min_bucket_reso": least,
        "ss_max_bucket_reso": most,
        "ss_bucket_info": information if data.enable_bucket else {},
        "ss_num_train_images": sum(r * n for r, n in facts.image_counts.values()),
        "ss_num_validation_images": 0,
        "ss_num_reg_images": sum(r * n for r, n in facts.reg_image_counts.values()),
        "ss_num_batches_per_epoch": facts.batches_per_epoch,
        "ss_total_batch_size": (
            data.batch_size * config.trainer.devices * config.trainer.accumulate_grad_batches
        ),
        "ss_batch_size_per_device": data.batch_size,
        "ss_dataset_dirs": _folders(facts.image_counts),
        "ss_reg_dataset_dirs": _folders(facts.reg_image_counts),
        "ss_tag_frequency": facts.tag_frequency,
        "ss_shuffle_caption": data.shuffle_caption,
        "ss_keep_tokens": data.keep_tokens,
        "ss_caption_dropout_rate": data.caption_dropout_rate,
        "ss_caption_dropout_every_n_epochs": data.caption_dropout_every_n_epochs,
        "ss_caption_tag_dropout_rate": data.caption_tag_dropout_rate,
        "ss_max_token_length": None if data.max_token_length == 75 else data.max_token_length,
        "ss_flip_aug": data.flip,
        "ss_color_aug": data.color_aug,
        "ss_random_crop": data.random_crop,
        "ss_face_crop_aug_range": None,
        "ss_cache_latents": True,
    }


def _folders(counts: dict[str, tuple[int, int]]) -> dict[str, dict[str, int]]:
    return {
        name: {"n_repeats": repeats, "img_count": count}
        for name, (repeats, count) in counts.items()
    }


def told_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that made a LoRA, by full key; a path of the user's machine is left out.

    They say what kohya's metadata have no word for, such as cycles of a schedule.
    """
    return {key: value_of(config, key) for key in told_keys()}


def value_of(config: TrainConfig, key: str) -> Any:
    """A setting by its full key, as plain values."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _modelspec(config: TrainConfig, facts: TrainingFacts) -> dict[str, Any]:
    finished = datetime.fromtimestamp(facts.finished_at, UTC)
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": SD15.architecture,
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": config.output_name,
        "modelspec.resolution": f"{config.data.resolution}x{config.data.resolution}",
        "modelspec.date": finished.strftime("%Y-%m-%dT%H:%M:%S"),
        "modelspec.prediction_type": PREDICTION_TYPES[facts.prediction_type],
    }
