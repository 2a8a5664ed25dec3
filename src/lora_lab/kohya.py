"""The LoRA file of kohya-ss/sd-scripts: names, bytes, hashes and metadata.

Each module has three tensors, for example `lora_unet_mid_block_attentions_0_proj_in` with
`.lora_down.weight` (dim, in[, kh, kw]), `.lora_up.weight` (out, dim[, 1, 1]) and `.alpha` ();
the change of its weight is `up @ down * alpha / dim`.

A1111, ComfyUI and Civitai read these files and their metadata, whose values are all strings.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lora_lab.config import NetworkConfig, OptimizerConfig, TrainConfig
from lora_lab.errors import LabError
from lora_lab.files import atomic_path

PREFIXES = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}
"""How the name of a module begins. transformers 5 dropped `text_model` from its own names."""
LEAVES = ("lora_down.weight", "lora_up.weight", "alpha")


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
    tag_frequency: dict[str, dict[str, int]]
    """Folder name -> comma-separated part of the captions -> how many images have it."""
    bucket_counts: dict[tuple[int, int], int]
    """(width, height) in pixels -> images times repeats."""
    checkpoint_name: str
    checkpoint_sha256: str | None
    """Of a single-file checkpoint; None for a folder."""
    checkpoint_legacy_hash: str | None
    started_at: float
    """Unix time in seconds."""
    finished_at: float
    session_id: int


def kohya_key(part: str, module_path: str, leaf: str) -> str:
    """Name of a tensor in kohya's file.

    Args:
        part: "unet" or "text_encoder".
        module_path: The module's path in diffusers' or transformers 5's model, with dots.
        leaf: "lora_down.weight", "lora_up.weight" or "alpha".
    """
    return f"{PREFIXES[part]}{module_path.replace('.', '_')}.{leaf}"


def write_lora(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a LoRA file, whole or not at all, with its hashes added to the metadata.

    The same tensors and metadata give the same bytes.

    Raises:
        LabError: The folder is not writable or the disk is full.
    """
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    model_hash, legacy_hash = lora_hashes(tensors, metadata)
    metadata = {**metadata, "sshs_model_hash": model_hash, "sshs_legacy_hash": legacy_hash}
    with atomic_path(path) as temporary:
        temporary.write_bytes(_sorted_metadata(save(tensors, metadata)))


def _sorted_metadata(content: bytes) -> bytes:
    """The same file with its metadata in the order of the keys: safetensors' own order varies."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def lora_hashes(tensors: dict[str, Tensor], metadata: dict[str, str]) -> tuple[str, str]:
    """The hashes by which web UIs recognise a LoRA.

    Both are taken of a file that holds the `ss_*` metadata only (sd-scripts,
    `precalculate_safetensors_hashes`).

    Returns:
        sshs_model_hash (64 hex digits, of all bytes after the header) and sshs_legacy_hash
        (8 hex digits, of the 64 KiB after the first MiB).
    """
    kept = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    content = save(tensors, kept)
    after_header = 8 + int.from_bytes(content[:8], "little")
    model_hash = hashlib.sha256(memoryview(content)[after_header:]).hexdigest()
    legacy_hash = hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]
    return model_hash, legacy_hash


def read_lora(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a LoRA file in kohya's layout, ours or not.

    Returns:
        Tensors and metadata (empty if the file has none).

    Raises:
        LabError: Missing, truncated, not safetensors, or not a LoRA in kohya's layout.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise LabError(f"{path} is missing: name a LoRA file that exists") from None
    except (SafetensorError, OSError) as error:
        raise LabError(
            f"{path} is not a complete safetensors file ({error}): download or train it anew"
        ) from None
    _refuse_other_kinds(path, tensors)
    return tensors, metadata


def _refuse_other_kinds(path: Path, tensors: dict[str, Tensor]) -> None:
    if not tensors:
        raise LabError(f"{path} holds no tensors: train or download it anew")
    for key in sorted(tensors):
        module, _, leaf = key.partition(".")
        if leaf not in LEAVES or not module.startswith("lora_"):
            raise LabError(
                f"{path}: key {key} does not belong to a LoRA in kohya's layout "
                "(lora_<module>.lora_down.weight, .lora_up.weight, .alpha); "
                "LoHa, LoKr, DoRA and diffusers' own layout cannot be read"
            )
        for needed in LEAVES[:2]:
            if f"{module}.{needed}" not in tensors:
                raise LabError(f"{path} lacks key {module}.{needed}: download or train it anew")


def lora_modules(tensors: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor, float]]:
    """Group a file's tensors by module.

    Returns:
        Module name -> (down, up, alpha / dim). A missing alpha means alpha = dim, as for kohya.
    """
    modules = {}
    for key in tensors:
        name, _, leaf = key.partition(".")
        if leaf == LEAVES[0]:
            down = tensors[key]
            alpha = tensors.get(f"{name}.alpha")
            scale = 1.0 if alpha is None else float(alpha) / down.shape[0]
            modules[name] = (down, tensors[f"{name}.{LEAVES[1]}"], scale)
    return modules


def lora_hash(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """The first 12 digits of sshs_model_hash: what A1111 writes as `Lora hashes`."""
    return (metadata.get("sshs_model_hash") or lora_hashes(tensors, metadata)[0])[:12]


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
        "ss_network_module": "networks.lora",
        "ss_network_dim": network.dim,
        "ss_network_alpha": network.alpha,
        "ss_network_args": _network_parts(network),
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


def _network_parts(network: NetworkConfig) -> dict[str, bool]:
    return {"train_unet": network.train_unet, "train_text_encoder": network.train_text_encoder}


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
        "ss_num_reg_images": 0,
        "ss_num_batches_per_epoch": facts.batches_per_epoch,
        "ss_total_batch_size": data.batch_size * config.trainer.devices,
        "ss_batch_size_per_device": data.batch_size,
        "ss_dataset_dirs": {
            name: {"n_repeats": repeats, "img_count": count}
            for name, (repeats, count) in facts.image_counts.items()
        },
        "ss_reg_dataset_dirs": {},
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
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": config.output_name,
        "modelspec.resolution": f"{config.data.resolution}x{config.data.resolution}",
        "modelspec.date": finished.strftime("%Y-%m-%dT%H:%M:%S"),
        "modelspec.prediction_type": "epsilon",
    }
