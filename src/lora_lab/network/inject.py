"""The LoRA: small trainable matrices beside the linear layers of a frozen base model.

W' x = W x + alpha / dim · up (down x), arXiv 2106.09685, section 4.1, applied by PEFT. 1x1
convolutions (proj_in and proj_out of the UNet) count as linear layers and keep 4-D weights.
"""

import math
from dataclasses import dataclass

import torch
from peft import LoraConfig
from peft.mapping import inject_adapter_in_model
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn
from torch.nn import Parameter

from lora_lab.base_model import BaseModel
from lora_lab.config import NetworkConfig
from lora_lab.errors import LabError
from lora_lab.kohya import kohya_key
from lora_lab.randomness import generator

TARGETS = {
    "unet": [
        *("to_q", "to_k", "to_v", "to_out.0"),
        *("proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    ],
    "text_encoder": ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
}
ADAPTER = "default"


@dataclass(frozen=True)
class LoRANetwork:
    """The LoRA layers that were put into a base model."""

    base: BaseModel
    config: NetworkConfig
    layers: dict[tuple[str, str], LoraLayer]
    """(part, path of the module in the base model) -> the PEFT layer that stands there."""

    def trainable(self, clip_skip: int) -> dict[str, list[Parameter]]:
        """The tensors that get a gradient, by part.

        With clip skip n the last n - 1 layers of the text encoder have no part in the output.
        Their LoRA stays as it began (no change of the base), and out of the optimizer.
        """
        used = self.base.text_encoder.config.num_hidden_layers - (clip_skip - 1)
        parts: dict[str, list[Parameter]] = {"unet": [], "text_encoder": []}
        for (part, path), layer in self.layers.items():
            if part == "text_encoder" and _layer_index(path) >= used:
                continue
            parts[part] += _matrices(layer)
        return parts

    def tensors(self) -> dict[str, Tensor]:
        """All LoRA tensors in kohya's names: down (dim, in[, 1, 1]), up (out, dim[, 1, 1]), alpha.

        Copies on the CPU, in float32.
        """
        tensors = {}
        for (part, path), layer in self.layers.items():
            down, up = _matrices(layer)
            tensors[kohya_key(part, path, "lora_down.weight")] = _copy(down)
            tensors[kohya_key(part, path, "lora_up.weight")] = _copy(up)
            tensors[kohya_key(part, path, "alpha")] = torch.tensor(float(self.config.alpha))
        return tensors

    def remove(self) -> None:
        """Put the base model's own layers back; their weights were never touched."""
        for (part, path), layer in self.layers.items():
            parent, _, name = path.rpartition(".")
            setattr(_model(self.base, part).get_submodule(parent), name, layer.base_layer)
        for part in TARGETS:
            model = _model(self.base, part)
            if "peft_config" in model.__dict__:
                del model.peft_config
            model.requires_grad_(False)


def inject_lora(base: BaseModel, config: NetworkConfig, seed: int) -> LoRANetwork:
    """Put a LoRA beside each linear layer of the parts that the config trains.

    Down starts Kaiming-uniform with a = √5, as in kohya's sd-scripts, from a generator of its own
    for each module: row i depends on seed, module and i alone, so a larger dim begins with the rows
    of a smaller one. Up starts at 0.

    Raises:
        LabError: Nothing is to be trained.
    """
    chosen = {"unet": config.train_unet, "text_encoder": config.train_text_encoder}
    layers = {}
    for part, targets in TARGETS.items():
        if not chosen[part]:
            continue
        model = _model(base, part)
        settings = LoraConfig(r=config.dim, target_modules=targets)
        settings.lora_alpha = config.alpha
        inject_adapter_in_model(settings, model, ADAPTER)
        for path, module in model.named_modules():
            if isinstance(module, LoraLayer):
                _initialise(module, config.dim, seed, kohya_key(part, path, "lora_down.weight"))
                layers[part, path] = module
    if not layers:
        raise LabError("network.train_unet and network.train_text_encoder are both false, set one")
    return LoRANetwork(base, config, layers)


def _matrices(layer: LoraLayer) -> tuple[Parameter, Parameter]:
    """Down and up of one layer."""
    down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    assert isinstance(down, Parameter) and isinstance(up, Parameter)
    return down, up


def _model(base: BaseModel, part: str) -> nn.Module:
    return base.unet if part == "unet" else base.text_encoder


def _layer_index(path: str) -> int:
    """Number of the text encoder's layer: ``encoder.layers.11.mlp.fc1`` -> 11."""
    return int(path.split("layers.", 1)[1].split(".", 1)[0])


def _initialise(layer: LoraLayer, dim: int, seed: int, key: str) -> None:
    """Kaiming-uniform with a = √5 is uniform within ±1/√fan_in (arXiv 1502.01852, section 2.2)."""
    down, up = _matrices(layer)
    fan_in = down[0].numel()
    draws = generator(seed, "lora_init", key)
    rows = [torch.rand(fan_in, generator=draws) for _ in range(dim)]
    with torch.no_grad():
        down.data = ((2.0 * torch.stack(rows) - 1.0) / math.sqrt(fan_in)).view_as(down)
        up.data = torch.zeros_like(up, dtype=torch.float32)


def _copy(parameter: Tensor) -> Tensor:
    return parameter.detach().to("cpu", torch.float32, copy=True)
