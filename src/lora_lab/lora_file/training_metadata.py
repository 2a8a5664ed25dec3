"""What a LoRA file tells of its training, as sd-scripts writes it.

A1111, ComfyUI and Civitai read this metadata; its values are all strings.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lora_lab.checkpoint.families.sd15 import SD15
from lora_lab.config import OptimizerConfig, TrainConfig

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
    return {key: _text(value) for key, value in values.items()}


def _text(value: Any) -> str:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _training(config: TrainConfig, facts: TrainingFacts) -> dict[str, Any]:
    optimizer = config.optimizer
    network = config.network
    return {
        "ss_base_model_version": config.model.name,
        "ss_sd_model_name": facts.checkpoint_name,
        "ss_sd_model_hash": facts.checkpoint_legacy_hash,
        "ss_new_sd_model_hash": facts.checkpoint_sha256,
        **facts.network,
        "ss_learning_rate": optimizer.lr,
        "ss_unet_lr": optimizer.lr if network.train_unet else None,
        "ss_text_encoder_lr": (
            optimizer.lr * optimizer.text_encoder_lr if network.train_text_encoder else None
        ),
        "ss_optimizer": _optimizer_text(optimizer),
        "ss_lr_scheduler": config.schedule.name,
        "ss_lr_warmup_steps": config.schedule.warmup_steps,
        "ss_max_grad_norm": config.trainer.gradient_clip_val,
        "ss_gradient_accumulation_steps": config.trainer.accumulate_grad_batches,
        "ss_mixed_precision": {"bf16-mixed": "bf16", "32-true": "no"}.get(config.trainer.precision),
        "ss_clip_skip": config.model.clip_skip,
        "ss_noise_offset": config.objective.noise_offset or None,
        "ss_min_snr_gamma": config.objective.min_snr_gamma or None,
        "ss_seed": config.seed,
        "ss_steps": facts.step,
        "ss_max_train_steps": facts.total_steps,
        "ss_epoch": facts.epoch,
        "ss_num_epochs": config.epochs,
        "ss_output_name": config.output_name,
        "ss_training_comment": None,
        "ss_training_started_at": facts.started_at,
        "ss_training_finished_at": facts.finished_at,
        "ss_session_id": facts.session_id,
    }


def _optimizer_text(optimizer: OptimizerConfig) -> str:
    names = ("betas", "eps", "weight_decay", "decouple", "use_bias_correction", "growth_rate", "d0")
    values = {name: getattr(optimizer, name) for name in names}
    given = [f"{name}={value}" for name, value in values.items() if value is not None]
    return f"{optimizer.name}({','.join(given)})".replace(" ", "")


def _data(config: TrainConfig, facts: TrainingFacts) -> dict[str, Any]:
    data = config.data
    buckets = {
        str(index): {"resolution": list(size), "count": count}
        for index, (size, count) in enumerate(sorted(facts.bucket_counts.items()))
    }
    return {
        "ss_resolution": f"({data.resolution}, {data.resolution})",
        "ss_enable_bucket": len(facts.bucket_counts) > 1,
        "ss_bucket_info": {"buckets": buckets, "mean_img_ar_error": 0.0},
        "ss_num_train_images": sum(r * n for r, n in facts.image_counts.values()),
        "ss_num_reg_images": sum(r * n for r, n in facts.reg_image_counts.values()),
        "ss_num_batches_per_epoch": facts.batches_per_epoch,
        "ss_total_batch_size": data.batch_size * config.trainer.devices,
        "ss_batch_size_per_device": data.batch_size,
        "ss_dataset_dirs": {
            name: {"n_repeats": repeats, "img_count": count}
            for name, (repeats, count) in facts.image_counts.items()
        },
        "ss_reg_dataset_dirs": {
            name: {"n_repeats": repeats, "img_count": count}
            for name, (repeats, count) in facts.reg_image_counts.items()
        },
        "ss_tag_frequency": facts.tag_frequency,
        "ss_shuffle_caption": data.shuffle_caption,
        "ss_keep_tokens": data.keep_tokens,
        "ss_flip_aug": data.flip,
        "ss_cache_latents": True,
    }


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
