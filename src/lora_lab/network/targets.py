"""Which layers of a base model get a LoRA, named and chosen as kohya's sd-scripts does.

Linear layers and 1x1 convolutions inside the UNet's transformers and inside the text encoder's
attention and MLP; with a `conv_dim` also every layer inside residual blocks, down- and upsamplers,
of which 3x3 convolutions take `conv_dim` and the others `dim` (sd-scripts, networks/lora.py).
"""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.config import NetworkConfig
from lora_lab.errors import ConfigError
from lora_lab.lora_file import kohya_key
from lora_lab.lora_file.layouts import LOKR, LayerChange

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """A layer that gets a LoRA."""

    part: str
    """unet or text_encoder."""
    path: str
    """Of the layer in the base model."""
    layer: nn.Linear | nn.Conv2d
    dim: int
    alpha: float
    """As the file will have it: with rsLoRA, the alpha asked for times the root of dim."""

    @property
    def name(self) -> str:
        """The layer's name in a LoRA file."""
        return layer_name(self.part, self.path)


def layer_name(part: str, path: str) -> str:
    """Name of a layer in a LoRA file, such as ``lora_unet_mid_block_attentions_0_proj_in``."""
    return kohya_key(part, path, "alpha").removesuffix(".alpha")


def part_of(base: BaseModel, part: str) -> nn.Module:
    """The UNet or the text encoder."""
    return base.unet if part == "unet" else base.text_encoder


def find_targets(
    base: BaseModel, config: NetworkConfig, start: dict[str, LayerChange]
) -> list[Target]:
    """The layers that the config trains, in the order of the model.

    Args:
        base: Its UNet and text encoder.
        config: Parts, dims and alphas.
        start: The layers of the file that training starts from; with `dim_from_weights` they alone
            are trained, with their own dims and alphas.

    Raises:
        ConfigError: A dim is larger than every layer, or nothing is to be trained.
    """
    chosen = {"unet": config.train_unet, "text_encoder": config.train_text_encoder}
    with_conv = config.conv_dim is not None or config.dim_from_weights
    targets = []
    for part in base.family.lora_blocks:
        for path, layer in _layers(base, part, with_conv) if chosen[part] else ():
            sizes = _sizes(config, layer, start.get(layer_name(part, path)))
            if sizes is not None:
                targets.append(Target(part, path, layer, *sizes))
    if not targets:
        raise ConfigError(
            "network trains nothing: set network.train_unet or network.train_text_encoder to true, "
            "or name network.weights that hold layers of the parts which are trained"
        )
    if config.name != LOKR and not config.dim_from_weights:
        _judge_dims(targets)
    return targets


def _layers(
    base: BaseModel, part: str, with_conv: bool
) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    """Path and module of every layer that may get a LoRA."""
    blocks = base.family.lora_blocks[part] + (base.family.conv_blocks if with_conv else ())
    inside: list[str] = []
    for path, module in part_of(base, part).named_modules():
        if type(module).__name__ in blocks:
            inside.append(f"{path}.")
        if isinstance(module, nn.Linear | nn.Conv2d) and path.startswith(tuple(inside)):
            yield path, module


def _sizes(
    config: NetworkConfig, layer: nn.Linear | nn.Conv2d, start: LayerChange | None
) -> tuple[int, float] | None:
    """Dim and alpha of a layer; None if it gets no LoRA."""
    if config.dim_from_weights:
        return None if start is None else (start.dim or config.dim, start.alpha)
    if kernel(layer) == 1:
        return config.dim, file_alpha(config.alpha, config.dim, config.rslora)
    if config.conv_dim is None or config.conv_alpha is None:
        return None
    return config.conv_dim, file_alpha(config.conv_alpha, config.conv_dim, config.rslora)


def file_alpha(alpha: float, dim: int, rslora: bool) -> float:
    """The alpha with which `alpha / dim` is the factor that is trained.

    rsLoRA trains with alpha / √dim (arXiv 2312.03732, definition 1). Files hold alpha as a 32-bit
    number, and so is this, so that a file gives the very factor that was trained.
    """
    if not rslora:
        return alpha
    return torch.tensor(alpha * math.sqrt(dim), dtype=torch.float32).item()


def kernel(layer: nn.Linear | nn.Conv2d) -> int:
    """Elements of a layer's kernel: 1 for a linear layer or a 1x1 convolution."""
    return math.prod(layer.weight.shape[2:])


def _judge_dims(targets: list[Target]) -> None:
    """Refuse a dim above the full rank of every layer it is for, and tell of one above some.

    A rank above a layer's smaller side adds numbers and no freedom, but the guide trains 512 on
    layers of 320 beside others of 1280.
    """
    for key, with_kernel in (("dim", False), ("conv_dim", True)):
        own = [target for target in targets if (kernel(target.layer) > 1) == with_kernel]
        if not own:
            continue
        sides = {target.name: min(target.layer.weight.flatten(1).shape) for target in own}
        dim, largest = own[0].dim, max(sides.values())
        if dim > largest:
            name = next(name for name, side in sides.items() if side == largest)
            raise ConfigError(
                f"network.{key} must be <= {largest} for this base, got {dim}: that is the smaller "
                f"side of its largest layer, {name}"
            )
        above = [name for name, side in sides.items() if side < dim]
        if above:
            log.warning(
                "network.%s=%d is above the smaller side of %d of %d layers (%s has %d): "
                "there it adds parameters but no degrees of freedom",
                *(key, dim, len(above), len(own), above[0], sides[above[0]]),
            )
