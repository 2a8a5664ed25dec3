"""Dropout of a LoRA whose masks are paired between runs.

A mask depends on (seed, layer, step, image), never on what was drawn before, the batch or the rate:
a larger rate drops what a smaller one drops and more, and a larger dim keeps the masks of the rows
that a smaller one has. The formulas are those of sd-scripts' networks/lora.py.

Shapes: B images, L positions, h and w sides, dim the rank.
"""

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.config import NetworkConfig
from lora_lab.errors import LabError
from lora_lab.randomness import derive_seed


@dataclass(frozen=True)
class Moment:
    """Which batch is being trained on."""

    step: int
    images: list[tuple[str, int]]
    """Key of each image and how often it occurred earlier in the step."""


class PairedDropout:
    """Drops values between down and up while a batch is trained on, and never else.

    Args:
        config: The three rates.
        seed: Of the run.
    """

    def __init__(self, config: NetworkConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.moment: Moment | None = None
        self._met: Counter[str] = Counter()
        self._step = 0

    @property
    def is_on(self) -> bool:
        """Whether any rate is above 0."""
        return any((self.config.dropout, self.config.rank_dropout, self.config.module_dropout))

    def attach(self, down: nn.Module, name: str) -> None:
        """Drop from what a layer's down gives; nothing is changed when all rates are 0.

        Args:
            down: The layer's first matrix.
            name: Of the layer in a LoRA file.
        """
        if self.is_on:
            down.register_forward_hook(lambda _module, _inputs, output: self.dropped(output, name))

    def begin(self, step: int, keys: list[str]) -> None:
        """A batch begins; its masks hold until `end`, for gradient checkpointing, too."""
        if step != self._step:
            self._step = step
            self._met.clear()
        images = []
        for key in keys:
            images.append((key, self._met[key]))
            self._met[key] += 1
        self.moment = Moment(step, images)

    def end(self) -> None:
        """The batch's gradients are there: from now on nothing is dropped."""
        self.moment = None

    def dropped(self, output: Tensor, name: str) -> Tensor:
        """What is left of (B, L, dim), (B, dim) or, of a convolution, (B, dim, h, w)."""
        if self.moment is None:
            return output
        rates = self.config
        if rates.module_dropout:
            uniform = torch.rand((), generator=self._generator(output, "module_dropout", name))
            if uniform < rates.module_dropout:
                return output * 0.0
        if rates.dropout:
            output = output * self._kept(output, "dropout", name, rates.dropout)
        if rates.rank_dropout:
            output = output * self._kept(output, "rank_dropout", name, rates.rank_dropout)
        return output

    def _kept(self, output: Tensor, kind: str, name: str, rate: float) -> Tensor:
        """0 for what is dropped, 1 / (1 - rate) for the rest, in the shape of the output."""
        assert self.moment is not None
        rows, images = len(output), self.moment.images
        if rows % len(images):
            raise LabError(f"{name}: {rows} rows can't be shared by {len(images)} images")
        convolution = output.ndim == 4
        dim = output.shape[1] if convolution else output.shape[-1]
        places = prod(output.shape[2:] if convolution else output.shape[1:-1])
        masks = []
        for row in range(rows):
            share, part = divmod(row, rows // len(images))
            generator = self._generator(output, kind, name, *images[share], part)
            columns = places if kind == "dropout" else 1
            masks.append(torch.rand((dim, columns), generator=generator, device=output.device))
        kept = (torch.stack(masks) >= rate).to(output.dtype) / (1.0 - rate)  # (B, dim, L or 1)
        if kind == "rank_dropout":
            kept = kept.expand(rows, dim, places)
        return kept.reshape(output.shape) if convolution else kept.mT.reshape(output.shape)

    def _generator(self, output: Tensor, kind: str, name: str, *keys: Any) -> torch.Generator:
        assert self.moment is not None
        seed = derive_seed(self.seed, kind, name, self.moment.step, *keys)
        device = "cpu" if kind == "module_dropout" else output.device
        return torch.Generator(device).manual_seed(seed)
