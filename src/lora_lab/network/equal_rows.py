"""What no LoRA touches, computed once for rows of a stacked pass that are equal.

Runs of one seed see the same images, noise and timesteps at a step, and all runs measure on the
same held-out noise. Their rows are equal until the first layer with a LoRA: the UNet's first
convolution, time embedding and residual blocks.

Shapes: R rows of a pass, C latent channels, h and w latent sides.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers.models.unets.unet_2d_blocks import DownBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn


@contextmanager
def equal_rows_once(
    unet: UNet2DConditionModel, touched: Collection[nn.Module], noisy: Tensor, timesteps: Tensor
) -> Iterator[None]:
    """While the block runs, the UNet is called with these rows.

    Args:
        unet: The UNet, whose first modules get one of several equal rows.
        touched: Layers to which a LoRA adds its change.
        noisy: (R, C, h, w).
        timesteps: (R,).
    """
    numbers = equal_row_numbers((timesteps, noisy))
    with ExitStack() as undo:
        if len(set(numbers)) < len(numbers):
            for module in untouched_start(unet, touched):
                undo.enter_context(_called(module, _once(module.forward, numbers)))
        yield


def untouched_start(unet: UNet2DConditionModel, touched: Collection[nn.Module]) -> list[nn.Module]:
    """The modules that a UNet calls first, before any that a LoRA touches or that reads text.

    Args:
        unet: The UNet.
        touched: Layers to which a LoRA adds its change.
    """
    in_order: list[nn.Module] = [unet.conv_in, unet.time_embedding]
    for block in unet.down_blocks:
        if isinstance(block, DownBlock2D) and not _any_touched(block, touched):
            in_order.append(block)
            continue
        in_order.append(block.resnets[0])
        break
    start = []
    for module in in_order:
        if _any_touched(module, touched):
            break
        start.append(module)
    return start


def _any_touched(module: nn.Module, touched: Collection[nn.Module]) -> bool:
    return any(layer in touched for layer in module.modules())


def equal_row_numbers(tensors: Sequence[Tensor]) -> list[int]:
    """Numbers of rows, from 0, which are the same where all tensors have the same bytes.

    Off the CPU all rows count as unlike: the host would wait for the comparison.

    Args:
        tensors: With R rows each.
    """
    if any(tensor.device.type != "cpu" for tensor in tensors):
        return list(range(len(tensors[0])))
    rows = [
        tensor.reshape(len(tensor), -1).contiguous().view(torch.uint8).numpy() for tensor in tensors
    ]
    found: dict[tuple[bytes, ...], int] = {}
    return [
        found.setdefault(tuple(row.tobytes() for row in parts), len(found))
        for parts in zip(*rows, strict=True)
    ]


@contextmanager
def _called(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """While the block runs, the module has this forward."""
    before = module.__dict__.get("forward")
    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del module.__dict__["forward"]
        else:
            module.__dict__["forward"] = before


def _once(forward: Callable[..., Any], numbers: list[int]) -> Callable[..., Any]:
    """A module's forward on the first row of each number, its answers given to all rows."""
    places = torch.tensor(numbers)
    firsts = torch.tensor([numbers.index(number) for number in range(max(numbers) + 1)])

    def rows_of(one: Any) -> Any:
        return one.index_select(0, firsts) if isinstance(one, Tensor) else one

    def to_all(answer: Any) -> Any:
        if isinstance(answer, tuple):
            return tuple(to_all(one) for one in answer)
        return answer.index_select(0, places)

    def call(*arguments: Any, **named: Any) -> Any:
        own = {name: rows_of(one) for name, one in named.items()}
        return to_all(forward(*map(rows_of, arguments), **own))

    return call
