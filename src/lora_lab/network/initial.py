"""How a LoRA begins: numbers that depend on seed, layer and place alone.

Every tensor has a generator of its own, and row i of a rank is drawn after row i - 1, so a larger
dim begins with the rows of a smaller one and no other setting moves a number.
"""

import math

import torch
from torch import Tensor
from torch.nn import Parameter

from lora_lab.network.layers import DOWN, UP
from lora_lab.randomness import generator


def lora_start(parameters: dict[str, Parameter], seed: int, name: str) -> None:
    """Down Kaiming-uniform with a = √5, as in kohya's sd-scripts; up 0.

    That is uniform within ±1/√fan_in (arXiv 1502.01852, section 2.2).

    Args:
        parameters: Of one layer; DoRA's magnitudes stay as they are.
        seed: Of the run.
        name: Of the layer in a LoRA file.
    """
    down, up = parameters[DOWN], parameters[UP]
    fan_in = down[0].numel()
    rows = _uniform_rows(len(down), fan_in, seed, f"{name}.{DOWN}")
    with torch.no_grad():
        down.data = ((2.0 * rows - 1.0) / math.sqrt(fan_in)).view_as(down)
        up.data = torch.zeros_like(up, dtype=torch.float32)


def loha_start(parameters: dict[str, Parameter], seed: int, name: str) -> None:
    """w1_a normal with deviation 0.1, both b's with 1, w2_a 0, as LyCORIS does."""
    deviations = {"hada_w1_a": 0.1, "hada_w1_b": 1.0, "hada_w2_b": 1.0, "hada_w2_a": 0.0}
    for leaf, parameter in parameters.items():
        by_rank = parameter.T if leaf.endswith("_a") else parameter  # (dim, others)
        draws = generator(seed, "lora_init", f"{name}.{leaf}")
        rows = [torch.randn(by_rank[0].numel(), generator=draws) for _ in by_rank]
        values = deviations[leaf] * torch.stack(rows)
        parameter.data = (values.T if leaf.endswith("_a") else values).contiguous()


def lokr_start(parameters: dict[str, Parameter], seed: int, name: str) -> None:
    """w1 and w2_a Kaiming-uniform with a = √5, w2_b or a whole w2 0, as LyCORIS does."""
    for leaf, parameter in parameters.items():
        if leaf in ("lokr_w2", "lokr_w2_b"):
            parameter.data = torch.zeros_like(parameter)
            continue
        fan_in = parameter.shape[1]
        by_rank = parameter.T if leaf.endswith("_a") else parameter
        rows = _uniform_rows(len(by_rank), by_rank.shape[1], seed, f"{name}.{leaf}")
        values = (2.0 * rows - 1.0) / math.sqrt(fan_in)
        parameter.data = (values.T if leaf.endswith("_a") else values).contiguous()


def _uniform_rows(rows: int, columns: int, seed: int, key: str) -> Tensor:
    """Uniform numbers in [0, 1), drawn row by row, (rows, columns)."""
    draws = generator(seed, "lora_init", key)
    return torch.stack([torch.rand(columns, generator=draws) for _ in range(rows)])
