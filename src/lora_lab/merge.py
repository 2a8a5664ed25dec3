"""Sampling with LoRAs: their change is added to the base's weights, and taken away exactly.

Merging costs nothing per step. The original tensors are set aside, not subtracted back, so that
`restore` brings back every bit.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from lora_lab.base_model import BaseModel
from lora_lab.errors import LabError
from lora_lab.kohya import kohya_key, lora_modules


class LoRAMerger:
    """Puts LoRAs into a base model and takes them out.

    Args:
        base: A base model without LoRA layers. Its linear and convolution weights are replaced
            while LoRAs are applied.
    """

    def __init__(self, base: BaseModel) -> None:
        self._layers = named_layers(base)
        self._originals: dict[str, Tensor] = {}

    def apply(self, loras: Sequence[tuple[dict[str, Tensor], float]]) -> None:
        """Set the base to its own weights plus these LoRAs, whatever was applied before.

        Args:
            loras: (tensors of a kohya file, weight); weight 1 is as trained.

        Raises:
            LabError: A LoRA does not fit; the base then stands as without LoRAs.
        """
        self.restore()
        for tensors, weight in loras:
            changes = lora_modules(tensors)
            for name in sorted(changes):
                self._check(name, changes[name])
            for name, (down, up, scale) in changes.items():
                layer = self._layers[name]
                before = layer.weight.data
                self._originals.setdefault(name, before)
                change = weight * scale * weight_change(down, up)
                layer.weight.data = before + change.reshape(before.shape).to(before)

    def restore(self) -> None:
        """Bring back the base's own weights, bit for bit."""
        for name, weight in self._originals.items():
            self._layers[name].weight.data = weight
        self._originals.clear()

    def _check(self, name: str, change: tuple[Tensor, Tensor, float]) -> None:
        """Refuse a module that the base lacks or that has another shape there."""
        if name not in self._layers:
            self.restore()
            raise LabError(
                f"LoRA file of another architecture: the base has no module {name}; "
                "choose a LoRA trained on this kind of checkpoint"
            )
        down, up, _ = change
        shape = tuple(self._layers[name].weight.shape)
        found = (up.shape[0], *down.shape[1:])
        same = found[:2] == shape[:2] and prod(found) == prod(shape)  # 1x1 convolutions are linear
        if not same or up.shape[1] != down.shape[0]:
            self.restore()
            raise LabError(
                f"LoRA file of another architecture: {name} changes a weight of shape {found}, "
                f"the base has {shape}; choose a LoRA trained on this kind of checkpoint"
            )


def weight_change(down: Tensor, up: Tensor) -> Tensor:
    """Up @ down in fp32.

    Args:
        down: (dim, in) or (dim, in, kh, kw).
        up: (out, dim) or (out, dim, 1, 1).

    Returns:
        (out, in) or (out, in * kh * kw).
    """
    return up.to(torch.float32).flatten(1) @ down.to(torch.float32).flatten(1)


def named_layers(base: BaseModel) -> dict[str, nn.Linear | nn.Conv2d]:
    """Every linear and convolution layer of UNet and text encoder under its name in a LoRA file."""
    layers: dict[str, nn.Linear | nn.Conv2d] = {}
    for part, root in (("unet", base.unet), ("text_encoder", base.text_encoder)):
        for path, module in root.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                layers[kohya_key(part, path, "alpha").removesuffix(".alpha")] = module
    return layers
