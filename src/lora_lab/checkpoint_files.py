"""Weights of a base checkpoint on disk: diffusers folders, SD 1.5 single files, old spellings.

Everything comes back as tensors under the names that today's diffusers and transformers use.
"""

import json
import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lora_lab.errors import LabError

ARCHITECTURE_FOLDER = Path(__file__).parent / "sd15"
"""Configs and tokenizer of Stable Diffusion 1.5, for checkpoints that are a single file."""

_WEIGHT_STEMS = ("diffusion_pytorch_model", "model")
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_OLD_VAE_ATTENTION = {
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}


def read_part(folder: Path, allow_pickle: bool) -> dict[str, Tensor]:
    """Read the weights of one part (unet, text_encoder, vae) of a diffusers folder.

    Raises:
        LabError: Folder or weights are missing or damaged, or a pickle that is not allowed.
    """
    if not folder.is_dir():
        raise LabError(
            f"{folder} is missing: model.checkpoint must be a complete diffusers folder "
            "(unet, text_encoder, tokenizer, vae, scheduler)"
        )
    for suffix in (".safetensors", ".fp16.safetensors"):
        for stem in _WEIGHT_STEMS:
            path = folder / f"{stem}{suffix}"
            if path.is_file():
                return modern_names(read_weights(path, allow_pickle))
    for path in sorted(folder.iterdir()):
        if path.suffix in _PICKLES:
            return modern_names(read_weights(path, allow_pickle))
    raise LabError(f"{folder} holds no weights: diffusion_pytorch_model.safetensors is missing")


def read_weights(path: Path, allow_pickle: bool) -> dict[str, Tensor]:
    """Read one file of weights.

    Raises:
        LabError: Missing, damaged, or a pickle although `allow_pickle` is false.
    """
    if path.suffix in _PICKLES:
        if not allow_pickle:
            raise LabError(
                f"{path} is a pickle, which can run code: convert it to safetensors, "
                "or set model.allow_pickle=true if you trust its source"
            )
        return _read_pickle(path)
    try:
        return load_file(path)
    except FileNotFoundError:
        raise LabError(f"{path} is missing: set model.checkpoint to a file that exists") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise LabError(
            f"{path} is not a complete safetensors file ({error}): download or copy it anew"
        ) from None


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or unsafe pickle
        reason = str(error).splitlines()[0]
        raise LabError(
            f"{path} cannot be read with weights_only=True ({reason}): convert it to safetensors"
        ) from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise LabError(f"{path} holds no dictionary of tensors: it is not a checkpoint")
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


def modern_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Translate names of older diffusers and transformers versions.

    transformers 4 prefixed CLIP's text tower with `text_model.` and stored `position_ids`;
    diffusers before 0.18 called the VAE's attention layers query, key, value and proj_attn.
    """
    renamed = {}
    for key, tensor in tensors.items():
        if key.endswith("embeddings.position_ids"):
            continue
        key = key.removeprefix("text_model.")
        match = re.fullmatch(r"(.*mid_block\.attentions\.0)\.(\w+)\.(weight|bias)", key)
        if match and match[2] in _OLD_VAE_ATTENTION:
            key = f"{match[1]}.{_OLD_VAE_ATTENTION[match[2]]}.{match[3]}"
        renamed[key] = tensor
    return renamed


def read_single_file(path: Path, configs: Path, allow_pickle: bool) -> dict[str, dict[str, Tensor]]:
    """Split a single-file (LDM layout) SD 1.5 checkpoint into the parts of a diffusers folder.

    The names are translated by diffusers' own tables.

    Args:
        path: .safetensors, or .ckpt when `allow_pickle` is true.
        configs: Folder with unet/config.json and vae/config.json of the architecture.
        allow_pickle: See `read_weights`.

    Raises:
        LabError: The file is missing, damaged or not a Stable Diffusion 1.x checkpoint.
    """
    from diffusers.loaders import single_file_utils as ldm

    tensors = read_weights(path, allow_pickle)
    needed = "model.diffusion_model.input_blocks.0.0.weight"
    if needed not in tensors:
        raise LabError(
            f"{path} lacks {needed}: it is not a full Stable Diffusion 1.x checkpoint "
            "(a LoRA, a VAE or a diffusers part?)"
        )
    config = {
        part: json.loads((configs / part / "config.json").read_text()) for part in ("unet", "vae")
    }
    text = ldm.convert_ldm_clip_checkpoint(dict(tensors))
    vae = modern_names(ldm.convert_ldm_vae_checkpoint(dict(tensors), config["vae"]))
    return {
        "unet": ldm.convert_ldm_unet_checkpoint(dict(tensors), config["unet"]),
        "text_encoder": modern_names(text),
        "vae": {
            key: tensor.reshape(tensor.shape[:2])
            if "mid_block.attentions" in key and tensor.ndim == 4
            else tensor
            for key, tensor in vae.items()
        },
    }
