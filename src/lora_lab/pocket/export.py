"""Write pocket's checkpoints as diffusers folders in fp16, and its CLIP beside them."""

import json
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from lora_lab.files import atomic_path, write_json
from lora_lab.pocket.unet import build_noise_scheduler

NAMES = {"plain": "pocket", "graphic": "pocket-graphic", "photo": "pocket-photo"}
"""Style -> folder of its checkpoint."""
CLIP_NAME = "pocket-clip"

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.30.0",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDPMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def _save_half(module: nn.Module, path: Path, prefix: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        prefix + name: tensor.to(torch.float16).contiguous()
        if tensor.is_floating_point()
        else tensor
        for name, tensor in module.state_dict().items()
        if not name.endswith("position_ids")
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})


def _save_config(config: dict[str, object], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {k: v for k, v in config.items() if k not in {"_name_or_path", "dtype", "torch_dtype"}}
    write_json(path, json.loads(json.dumps(kept)))


def export_checkpoint(
    folder: Path,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
) -> None:
    """Write a diffusers folder that ``StableDiffusionPipeline.from_pretrained`` reads."""
    _save_config(dict(unet.config), folder / "unet" / "config.json")
    _save_half(unet, folder / "unet" / "diffusion_pytorch_model.safetensors")
    _save_config(dict(vae.config), folder / "vae" / "config.json")
    _save_half(vae, folder / "vae" / "diffusion_pytorch_model.safetensors")
    _save_config(text_encoder.config.to_dict(), folder / "text_encoder" / "config.json")
    # With the prefix that transformers 4 wrote: older readers know no other.
    _save_half(text_encoder, folder / "text_encoder" / "model.safetensors", prefix="text_model.")
    tokenizer.save_pretrained(folder / "tokenizer")
    build_noise_scheduler().save_pretrained(folder / "scheduler")
    write_json(folder / "model_index.json", MODEL_INDEX)


def export_clip(folder: Path, clip: CLIPModel, tokenizer: CLIPTokenizer) -> None:
    """Write the whole CLIP as a transformers folder."""
    _save_config(clip.config.to_dict(), folder / "config.json")
    _save_half(clip, folder / "model.safetensors")
    tokenizer.save_pretrained(folder)
