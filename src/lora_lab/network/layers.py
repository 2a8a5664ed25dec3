"""The trained tensors of one layer, under the names that a LoRA file gives them.

LoRA is PEFT's layer, which stands in the place of the base's own; DoRA, LoHa and LoKr are those of
LyCORIS, which answer for the base's layer and stand beside the model. Where several LoRAs are
trained at once, each has its tensors alone, and the stack applies them.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn
from torch.nn import Parameter

ADAPTER = "default"
DOWN, UP = "lora_down.weight", "lora_up.weight"


class AdapterLayer(Protocol):
    """What a LoRA needs to know of each of its layers."""

    def parameters(self) -> dict[str, Parameter]:
        """Last part of the key in the file -> tensor that is trained."""

    def file_tensors(self) -> dict[str, Tensor]:
        """What the file gets, by the last part of the key: CPU copies in float32."""

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `file_tensors` gave."""


@dataclass(frozen=True)
class PeftLayer:
    """LoRA."""

    module: LoraLayer
    alpha: float
    """As the file has it."""

    def parameters(self) -> dict[str, Parameter]:
        """Down (dim, in[, kh, kw]) and up (out, dim[, 1, 1])."""
        return {
            DOWN: self.module.lora_A[ADAPTER].weight,
            UP: self.module.lora_B[ADAPTER].weight,
        }

    def file_tensors(self) -> dict[str, Tensor]:
        """Down, up and alpha."""
        tensors = {leaf: copied(tensor) for leaf, tensor in self.parameters().items()}
        return {**tensors, "alpha": torch.tensor(float(self.alpha))}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over down and up."""
        _take_over(self.parameters(), tensors)


class LoRATensors(nn.Module):
    """Down and up of one layer in the shapes that PEFT gives them, and nothing that applies them.

    Args:
        dim: The rank.
        width: Channels that the layer gives.
        rest: Shape of the layer's weight behind that: channels that it takes, and a kernel.
    """

    def __init__(self, dim: int, width: int, rest: list[int]) -> None:
        super().__init__()
        self.lora_down = Parameter(torch.empty(dim, *rest))
        self.lora_up = Parameter(torch.empty(width, dim, *[1] * (len(rest) - 1)))


@dataclass(frozen=True)
class FreeLayer:
    """LoRA of a run in a stack."""

    module: LoRATensors
    alpha: float
    """As the file has it."""

    def parameters(self) -> dict[str, Parameter]:
        """Down (dim, in[, kh, kw]) and up (out, dim[, 1, 1])."""
        return {DOWN: self.module.lora_down, UP: self.module.lora_up}

    def file_tensors(self) -> dict[str, Tensor]:
        """Down, up and alpha."""
        tensors = {leaf: copied(tensor) for leaf, tensor in self.parameters().items()}
        return {**tensors, "alpha": torch.tensor(float(self.alpha))}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over down and up."""
        _take_over(self.parameters(), tensors)


@dataclass(frozen=True)
class LycorisLayer:
    """DoRA, LoHa or LoKr."""

    module: Any
    """LyCORIS' LoConModule, LohaModule or LokrModule."""

    def parameters(self) -> dict[str, Parameter]:
        """LyCORIS' own names, such as ``hada_w1_a`` or ``dora_scale``."""
        return dict(nn.Module.named_parameters(self.module))

    def file_tensors(self) -> dict[str, Tensor]:
        """The trained tensors and alpha."""
        tensors = {leaf: copied(tensor) for leaf, tensor in self.parameters().items()}
        return {**tensors, "alpha": torch.tensor(float(self.module.alpha))}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over the trained tensors."""
        _take_over(self.parameters(), tensors)


def _take_over(parameters: dict[str, Parameter], tensors: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for leaf, parameter in parameters.items():
            parameter.copy_(tensors[leaf].reshape(parameter.shape))


def copied(tensor: Tensor) -> Tensor:
    """A copy on the CPU in float32."""
    return tensor.detach().to("cpu", torch.float32, copy=True)
