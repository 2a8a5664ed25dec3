"""LoRA files made by hand, for tests that read, merge and sample them."""

import torch
from torch import Tensor

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.lora_file import kohya_key
from lora_lab.lora_file.merge import named_layers

UNET = ("to_q", "to_k", "to_v", "to_out_0", "proj_in", "proj_out", "ff_net_0_proj", "ff_net_2")
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def random_lora(
    base: BaseModel, dim: int = 2, alpha: float = 1.0, size: float = 0.2, seed: int = 0
) -> dict[str, Tensor]:
    """Normal random numbers for every layer that sd-scripts trains, in kohya's names."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, layer in named_layers(base).items():
        ends = UNET if name.startswith("lora_unet_") else TEXT
        if not name.endswith(ends) or name.endswith("time_emb_proj"):
            continue
        out, inner, *kernel = layer.weight.shape
        down = torch.randn((dim, inner, *kernel), generator=generator)
        up = torch.randn((out, dim, *([1] * len(kernel))), generator=generator)
        tensors[f"{name}.lora_down.weight"] = down * size
        tensors[f"{name}.lora_up.weight"] = up * size
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


def one_module_lora(
    part: str, path: str, shape: tuple[int, int], dim: int = 2
) -> dict[str, Tensor]:
    """A LoRA of ones for a single layer of shape (out, in) or (out, in, 1, 1)."""
    return {
        kohya_key(part, path, "lora_down.weight"): torch.ones(dim, shape[1]),
        kohya_key(part, path, "lora_up.weight"): torch.ones(shape[0], dim),
        kohya_key(part, path, "alpha"): torch.tensor(1.0),
    }
