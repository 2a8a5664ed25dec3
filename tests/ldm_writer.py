"""Writes a Stable Diffusion 1.x checkpoint in the LDM layout, as CompVis trained and shared it.

The names follow the modules of CompVis/stable-diffusion (`UNetModel`, `AutoencoderKL`), worked out
here from their structure: the code under test reads with diffusers' tables.
"""

import json
import re
import shutil
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from lora_lab.checkpoint.families.sd15 import SD15
from tiny_model import tiny_tokenizer, write_index

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}


def unet_name(key: str) -> str:
    """`down_blocks.0.resnets.1.conv1.weight` -> `input_blocks.2.0.in_layers.2.weight`."""
    path, _, leaf = key.rpartition(".")
    if path in ENDS:
        return f"{ENDS[path]}.{leaf}"
    match = re.fullmatch(r"(down|mid|up)_block(?:s\.(\d))?\.(\w+)\.(\d)\.(.+)", path)
    assert match, key
    side, block, kind, index, inner = match.groups()
    number = int(index) + (0 if block is None else 3 * int(block))
    place = {
        "down": f"input_blocks.{number + 1}",
        "mid": f"middle_block.{2 * int(index) if kind == 'resnets' else 1}",
        "up": f"output_blocks.{number}",
    }[side]
    if kind == "downsamplers":
        return f"input_blocks.{3 * int(block) + 3}.0.op.{leaf}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * int(block) + 2}.{1 if block == '0' else 2}.conv.{leaf}"
    column = "" if side == "mid" else f".{0 if kind == 'resnets' else 1}"
    return f"{place}{column}.{RESNET.get(inner, inner)}.{leaf}"


def vae_name(key: str) -> str:
    """`decoder.up_blocks.0.resnets.2.conv1.weight` -> `decoder.up.3.block.2.conv1.weight`."""
    path, _, leaf = key.rpartition(".")
    if match := re.fullmatch(r"(\w+)\.mid_block\.attentions\.0\.(.+)", path):
        return f"{match[1]}.mid.attn_1.{VAE_ATTENTION[match[2]]}.{leaf}"
    if match := re.fullmatch(r"(\w+)\.mid_block\.resnets\.(\d)\.(\w+)", path):
        return f"{match[1]}.mid.block_{int(match[2]) + 1}.{match[3]}.{leaf}"
    if match := re.fullmatch(r"(\w+)\.(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(\w+)", path):
        side, up, level, kind, index, inner = match.groups()
        number = 3 - int(level) if up == "up" else int(level)
        inner = "nin_shortcut" if inner == "conv_shortcut" else inner
        middle = f"block.{index}" if kind == "resnets" else f"{up}sample"
        return f"{side}.{up}.{number}.{middle}.{inner}.{leaf}"
    return key.replace("conv_norm_out", "norm_out")


def ldm_tensors(parts: dict[str, nn.Module], text_model: str = "text_model.") -> dict[str, Tensor]:
    """All tensors of a checkpoint in the LDM layout.

    Args:
        parts: unet, vae and text_encoder.
        text_model: What transformers 4 put before CLIP's names; empty for transformers 5.
    """
    tensors = {
        f"model.diffusion_model.{unet_name(key)}": tensor
        for key, tensor in parts["unet"].state_dict().items()
    }
    for key, tensor in parts["vae"].state_dict().items():
        if "mid_block.attentions" in key and key.endswith("weight") and "norm" not in key:
            tensor = tensor[:, :, None, None]
        tensors[f"first_stage_model.{vae_name(key)}"] = tensor
    for key, tensor in parts["text_encoder"].state_dict().items():
        tensors[f"cond_stage_model.transformer.{text_model}{key}"] = tensor
    return tensors


def training_leftovers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """EMA weights and what else lies in files of a training loop; other numbers than the rest."""
    unet = [key for key in tensors if key.startswith("model.diffusion_model.")]
    ema = {f"model_ema.{key.removeprefix('model.').replace('.', '')}": key for key in unet}
    return {
        **{name: tensors[key] + 1 for name, key in ema.items()},
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(1),
        "betas": torch.zeros(1000),
        "alphas_cumprod": torch.zeros(1000),
        "first_stage_model.loss.logvar": torch.zeros(1),
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "cond_stage_model.transformer.text_projection.weight": torch.zeros(4, 4),
    }


def write_ldm(path: Path, tensors: dict[str, Tensor], dtype: torch.dtype, **metadata: str) -> Path:
    """Write a single file; whole numbers keep their type."""
    stored = {
        key: tensor.to(dtype).contiguous() if tensor.is_floating_point() else tensor.contiguous()
        for key, tensor in tensors.items()
    }
    save_file(stored, path, metadata or None)
    return path


def narrow_architecture(folder: Path) -> Path:
    """Stable Diffusion 1.5's own configs with few channels and tokens: the same keys, small."""
    shutil.copytree(SD15.configs, folder)
    shutil.rmtree(folder / "tokenizer")
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folder / "tokenizer")
    write_index(folder)
    changes: dict[str, dict[str, object]] = {
        "unet": {
            "block_out_channels": [16, 32, 32, 32],
            "norm_num_groups": 8,
            "attention_head_dim": 2,
            "cross_attention_dim": 24,
        },
        "vae": {"block_out_channels": [8, 16, 16, 16], "norm_num_groups": 4},
        "text_encoder": {
            "vocab_size": len(tokenizer),
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_attention_heads": 2,
            "num_hidden_layers": 3,
        },
    }
    for part, values in changes.items():
        path = folder / part / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        assert values.keys() <= config.keys()
        path.write_text(json.dumps({**config, **values}), encoding="utf-8")
    return folder


def random_parts(folder: Path, seed: int = 0) -> dict[str, nn.Module]:
    """UNet, VAE and text encoder of a folder's configs, with random weights."""

    def config(part: str) -> dict[str, object]:
        return json.loads((folder / part / "config.json").read_text(encoding="utf-8"))

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {
            "unet": UNet2DConditionModel.from_config(config("unet")).eval(),
            "vae": AutoencoderKL.from_config(config("vae")).eval(),
            "text_encoder": CLIPTextModel(CLIPTextConfig.from_dict(config("text_encoder"))).eval(),
        }
