"""LoRA as one product with W + ΔW, where that is less work than the LoRA beside the layer.

Counted in multiplications of a training step beyond those of the frozen layer, forward and
backward: beside it 3 T r (f + o); merged T f o for the gradient of W + ΔW, and 3 r f o to form ΔW
and for the gradients of up and down. So a high rank on few channels is merged, a low one never.

Shapes: T rows (images times positions or pixels), r the rank, f what a row of the weight takes
(channels times kernel), o channels that the layer gives.
"""

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn
from torch.nn import functional

from lora_lab.network.layers import ADAPTER


def merging_pays(rows: int, rank: int, fan_in: int, width: int) -> bool:
    """Whether W + ΔW takes fewer operations than the LoRA beside W.

    Args:
        rows: T.
        rank: r.
        fan_in: f.
        width: o.
    """
    beside = 3 * rows * rank * (fan_in + width)
    return rows * fan_in * width + 3 * rank * fan_in * width < beside


def merge_where_it_pays(module: LoraLayer) -> None:
    """Let a PEFT layer of a linear layer or a convolution choose by the shape of what it is given.

    The LoRA stays beside the layer in 16 bits, in which W + ΔW would round ΔW away, and on GPUs,
    where it wasn't measured. It mustn't have dropout, which acts between down and up.
    """
    beside: Callable[..., Tensor] = module.forward
    layer = module.get_base_layer()
    down, up = module.lora_A[ADAPTER].weight, module.lora_B[ADAPTER].weight
    scale = module.scaling[ADAPTER]
    fan_in, width = layer.weight[0].numel(), len(layer.weight)

    def forward(x: Tensor, *arguments: Any, **named: Any) -> Tensor:
        exact = x.dtype == layer.weight.dtype == down.dtype == torch.float32
        if x.device.type != "cpu" or not exact or torch.is_autocast_enabled("cpu"):
            return beside(x, *arguments, **named)
        if not merging_pays(_rows(layer, x), len(down), fan_in, width):
            return beside(x, *arguments, **named)
        change = torch.addmm(layer.weight.flatten(1), up.flatten(1), down.flatten(1), alpha=scale)
        weight = change.view_as(layer.weight)
        if isinstance(layer, nn.Conv2d):
            return layer._conv_forward(x, weight, layer.bias)
        return functional.linear(x, weight, layer.bias)

    module.forward = forward


def _rows(layer: nn.Module, x: Tensor) -> int:
    """T: images times positions, or times pixels that a convolution gives."""
    if not isinstance(layer, nn.Conv2d):
        return x.numel() // x.shape[-1]
    high, wide = layer.stride
    return len(x) * -(-x.shape[-2] // high) * -(-x.shape[-1] // wide)
