"""Stable Diffusion 1.x and its fine-tunes (arXiv 2112.10752): all that is particular to it.

diffusers and transformers are imported where a model is built or a file is translated, so that
whoever only needs a name of a LoRA file doesn't wait for them.
"""

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lora_lab.checkpoint.families.description import Config, Family
from lora_lab.checkpoint.old_names import modern_names

UNET, TEXT, VAE = "model.diffusion_model.", "cond_stage_model.", "first_stage_model."
"""How keys of a single file begin (CompVis' layout)."""
_TEXT_TOWER = f"{TEXT}transformer."
_OWN_TEXT_KEYS = ("embeddings.", "encoder.", "final_layer_norm.")
"""Of CLIP's text tower; others, such as a projection, aren't used."""


def _unet(config: dict[str, Any]) -> nn.Module:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    return UNet2DConditionModel.from_config(config)


def _text_encoder(config: dict[str, Any]) -> nn.Module:
    from transformers.models.clip.configuration_clip import CLIPTextConfig
    from transformers.models.clip.modeling_clip import CLIPTextModel

    return CLIPTextModel(CLIPTextConfig.from_dict(config))


def _vae(config: dict[str, Any]) -> nn.Module:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL.from_config(config)


def _split(tensors: dict[str, Tensor], configs: Path) -> dict[str, dict[str, Tensor]]:
    """Translate a single file by diffusers' own tables.

    EMA weights (`model_ema.*`) and keys of training loops stay unread: the plain weights are what
    others train and sample with.
    """
    from diffusers.loaders import single_file_utils as ldm

    tensors = {key: tensor for key, tensor in tensors.items() if key.startswith((UNET, TEXT, VAE))}
    unet, vae = (
        json.loads((configs / part / "config.json").read_text(encoding="utf-8"))
        for part in ("unet", "vae")
    )
    return {
        "unet": ldm.convert_ldm_unet_checkpoint(dict(tensors), unet),
        "text_encoder": _text_tensors(tensors),
        "vae": _flat_attention(ldm.convert_ldm_vae_checkpoint(dict(tensors), vae)),
    }


def _text_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """CLIP's text tower; files of transformers 4 say `text_model.`, those of 5 don't."""
    found = {
        key.removeprefix(_TEXT_TOWER): tensor
        for key, tensor in tensors.items()
        if key.startswith(_TEXT_TOWER)
    }
    return {
        key: tensor for key, tensor in modern_names(found).items() if key.startswith(_OWN_TEXT_KEYS)
    }


def _flat_attention(vae: dict[str, Tensor]) -> dict[str, Tensor]:
    """The VAE's attention as linear layers; single files have it as 1x1 convolutions."""
    return {
        key: tensor.reshape(tensor.shape[:2])
        if "mid_block.attentions" in key and tensor.ndim == 4
        else tensor
        for key, tensor in modern_names(vae).items()
    }


def _halvings(config: Config) -> int:
    """The factor by which a UNet or VAE makes its input smaller: 2 for every level but one."""
    return 2 ** (len(config["block_out_channels"]) - 1)


SD15 = Family(
    name="Stable Diffusion 1.x",
    configs=Path(__file__).parent / "sd15_configs",
    weight_stems={
        "unet": "diffusion_pytorch_model",
        "text_encoder": "model",
        "vae": "diffusion_pytorch_model",
    },
    build={"unet": _unet, "text_encoder": _text_encoder, "vae": _vae},
    needed={
        "the UNet": f"{UNET}input_blocks.0.0.weight",
        "the text encoder": _TEXT_TOWER,
        "the VAE": f"{VAE}decoder.conv_in.weight",
    },
    split=_split,
    latent_factor=_halvings,  # 8 pixels a latent
    unet_factor=_halvings,  # 8 latents, and so buckets and images in steps of 64 pixels
    # transformers 5 dropped `text_model` from its own names; the files keep it.
    lora_names={"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"},
    lora_prefixes={"unet": "lora_unet_", "text_encoder": "lora_te_"},
    # sd-scripts, networks/lora.py: UNET_TARGET_REPLACE_MODULE and the two beside it.
    lora_blocks={"unet": ("Transformer2DModel",), "text_encoder": ("CLIPAttention", "CLIPMLP")},
    conv_blocks=("ResnetBlock2D", "Downsample2D", "Upsample2D"),
    other_loras={
        "lora_te1_": "a LoRA for SDXL",
        "lora_te2_": "a LoRA for SDXL",
        "lora_te3_": "a LoRA for SD3",
        "lora_unet_input_blocks_": "a LoRA for SDXL",
        "lora_unet_output_blocks_": "a LoRA for SDXL",
        "lora_unet_middle_block_": "a LoRA for SDXL",
        "lora_unet_joint_blocks_": "a LoRA for SD3",
        "lora_unet_double_blocks_": "a LoRA for Flux",
        "lora_unet_single_blocks_": "a LoRA for Flux",
    },
    architecture="stable-diffusion-v1/lora",
)
