"""Several LoRAs beside the same frozen layers: one pass of the base for the batches of all.

The batches are concatenated along the batch axis. A frozen layer computes all of them at
once, and each LoRA adds its own change to its own rows by batched products. Ranks that differ are
padded with zeros, which change nothing and whose gradients nobody sees.

Shapes: K runs, B images of each run in a pass, L positions, P pixels, r the largest rank of the
runs, R rows (K · B times what an image has: chunks of a caption), N numbers of a run's LoRA, M with
the padding, C latent channels, h and w latent sides, D hidden size of the text encoder.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.functional import conv2d

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.network.equal_rows import equal_rows_once
from lora_lab.network.inject import LoRANetwork
from lora_lab.network.targets import Target, kernel, part_of

Trained = Callable[[], dict[str, list[Parameter]]]
"""What a run's optimizer steps over, by part: one flat tensor, or the part's own tensors."""

Kept = Callable[[tuple[int, int, int]], Tensor]
"""From (rows of a run, r, places) to the factors of dropout, (K, rows, r, places)."""


@dataclass(frozen=True)
class Member:
    """One run's LoRA in a stack."""

    network: LoRANetwork
    clip_skip: int
    trained: Trained

    def flat(self, part: str) -> Tensor | None:
        """All that the run trains in a part, down then up of each layer, (N,); None for nothing."""
        tensors = self.trained().get(part, [])
        if len(tensors) == 1:
            return tensors[0].reshape(-1)
        return torch.cat([one.reshape(-1) for one in tensors]) if tensors else None

    @cached_property
    def dims(self) -> dict[str, int]:
        """Rank of each layer, by its name in a LoRA file."""
        return {target.name: target.dim for target in self.network.layers}

    def targets(self, part: str) -> dict[str, Target]:
        """The layers behind `flat`, in its order, by their names in a LoRA file."""
        used = self.network.used(self.clip_skip)
        return {target.name: target for target in used if target.part == part}


class LoRAStack:
    """The LoRAs of several runs beside one base model.

    Args:
        base: Whose layers get them. Its modules stay as they are; only hooks are added.
    """

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self.members: list[Member] = []
        self._touched: set[nn.Module] = set()
        self._hooks: dict[str, Any] = {}
        self._layouts: dict[tuple[str, tuple[int, ...]], Layout] = {}
        self._matrices: dict[str, tuple[Tensor, Tensor]] = {}
        self._runs: tuple[int, ...] = ()

    def add(self, member: Member) -> int:
        """Take a run's LoRA in; returns its number."""
        self.members.append(member)
        for target in member.network.layers:
            if target.name not in self._hooks:
                layer = part_of(self.base, target.part).get_submodule(target.path)
                self._touched.add(layer)
                self._hooks[target.name] = layer.register_forward_hook(self._hook(target.name))
        return len(self.members) - 1

    def remove(self) -> None:
        """Leave the base as it was."""
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()

    @contextmanager
    def runs(self, part: str, numbers: Sequence[int]) -> Iterator[None]:
        """While the block runs, a pass of a part has the rows of these runs, concatenated.

        Args:
            part: unet or text_encoder.
            numbers: Of the runs, in the order of their rows; each has as many rows as the others.
        """
        self._runs = tuple(numbers)
        self._matrices = self._packed(part, self._runs)
        try:
            yield
        finally:
            self._runs, self._matrices = (), {}

    def denoise(self, noisy: Tensor, timesteps: Tensor, hidden: Tensor) -> Tensor:
        """What the UNet makes of the rows of the runs named by `runs`, (R, C, h, w).

        Layers before the first LoRA of any run are computed once for equal rows.

        Args:
            noisy: Noisy latents, (R, C, h, w).
            timesteps: (R,).
            hidden: Encoded captions, (R, L, D).
        """
        unet = self.base.unet
        number = next(unet.parameters()).dtype  # a base in bf16 takes bf16
        noisy, hidden = noisy.to(number), hidden.to(number)
        with equal_rows_once(unet, self._touched, noisy, timesteps):
            predicted: Tensor = unet(noisy, timesteps, hidden, return_dict=False)[0]
        return predicted

    def _packed(self, part: str, runs: tuple[int, ...]) -> dict[str, tuple[Tensor, Tensor]]:
        """Down (K, r, in[, kh, kw]) and up · alpha / dim (K, out, r) of each layer."""
        flats = [self.members[run].flat(part) for run in runs]
        if (part, runs) not in self._layouts:
            targets = [self.members[run].targets(part) for run in runs]
            self._layouts[part, runs] = make_layout(targets)
        layout = self._layouts[part, runs]
        if not layout.slots:
            return {}
        stacks = _Pack.apply(layout, *flats)
        return {
            slot.name: (stacks[2 * index], stacks[2 * index + 1])
            for index, slot in enumerate(layout.slots)
        }

    def _hook(self, name: str) -> Callable[[Any, tuple[Tensor, ...], Tensor], Tensor | None]:
        def add(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            if name not in self._matrices:
                return None
            down, up = self._matrices[name]
            return add_changes(layer, inputs[0], output, down, up, self._kept(name, down))

        return add

    def _kept(self, name: str, down: Tensor) -> Kept | None:
        """Draw what dropout leaves of a layer's rows; None where no run drops anything."""
        members = [self.members[run] for run in self._runs]
        dropping = {
            number: member
            for number, member in enumerate(members)
            if member.network.dropout.moment is not None and name in member.dims
            if member.network.dropout.is_on
        }
        if not dropping:
            return None

        def kept(shape: tuple[int, int, int]) -> Tensor:
            rows, _, places = shape
            factors = down.new_ones((len(members), *shape))
            for number, member in dropping.items():
                ones = down.new_ones((rows, member.dims[name], places, 1))
                own = member.network.dropout.dropped(ones, name)
                factors[number, :, : member.dims[name]] = own.squeeze(-1)
            return factors

        return kept


def add_changes(
    layer: nn.Linear | nn.Conv2d,
    inputs: Tensor,
    output: Tensor,
    down: Tensor,
    up: Tensor,
    kept: Kept | None,
) -> Tensor:
    """W x + up (down x) of each run on its own rows, arXiv 2106.09685, section 4.1.

    Args:
        layer: The frozen layer.
        inputs: x, (R, [L,] in) or (R, in, h, w).
        output: W x.
        down: (K, r, in[, kh, kw]).
        up: (K, out, r), with alpha / dim in it.
        kept: Draws the factors of dropout for what down gives, (K, R/K, r, places).
    """
    inputs = inputs.to(down.dtype)
    runs, rank = down.shape[:2]
    rows = len(inputs) // runs
    if isinstance(layer, nn.Conv2d):
        hidden = _down_convolution(layer, inputs, down)  # (K, B, r, P)
        if kept is not None:
            hidden = hidden * kept((rows, rank, hidden.shape[-1]))
        ups = up.unsqueeze(1).expand(-1, rows, -1, -1).flatten(0, 1)  # (K · B, out, r)
        changed = torch.baddbmm(output.flatten(2).to(hidden.dtype), ups, hidden.flatten(0, 1))
    else:
        hidden = torch.bmm(inputs.reshape(runs, -1, inputs.shape[-1]), down.mT)  # (K, R/K · L, r)
        if kept is not None:
            factors = kept((rows, rank, hidden.shape[1] // rows))  # (K, R/K, r, L)
            hidden = hidden * factors.mT.reshape(hidden.shape)
        before = output.reshape(runs, -1, up.shape[1]).to(hidden.dtype)
        changed = torch.baddbmm(before, hidden, up.mT)
    return changed.view(output.shape).to(output.dtype)


def _down_convolution(layer: nn.Conv2d, inputs: Tensor, down: Tensor) -> Tensor:
    """Down x of each run's own images, (K, B, r, P)."""
    runs, rank = down.shape[:2]
    images = len(inputs) // runs
    if kernel(layer) == 1:
        pixels = inputs.reshape(runs, images, inputs.shape[1], -1)
        return torch.matmul(down.view(runs, 1, rank, -1), pixels)
    # The runs are groups of one convolution, (B, K · in, h, w): four to seven times as fast as
    # unfolding, and 1.2 to 6 times as fast as a convolution a run.
    side_by_side = inputs.unflatten(0, (runs, images)).transpose(0, 1).flatten(1, 2)
    hidden = conv2d(
        side_by_side,
        down.flatten(0, 1),
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=runs,
    )
    return hidden.unflatten(1, (runs, rank)).transpose(0, 1).flatten(3)


@dataclass(frozen=True)
class Slot:
    """Where a layer's numbers stand in a padded row."""

    name: str
    rank: int
    """r: the largest of the runs'."""
    down_shape: tuple[int, ...]
    """(r, in[, kh, kw])"""
    width: int
    """out"""

    @property
    def sizes(self) -> tuple[int, int]:
        """Numbers of the padded down and up."""
        return torch.Size(self.down_shape).numel(), self.width * self.rank


@dataclass(frozen=True)
class Layout:
    """How the numbers of several runs are laid out side by side, padded to the same ranks."""

    slots: list[Slot]
    places: list[Tensor | None]
    """Of each run: where its numbers go in a padded row, (N,); None: as they are."""
    factors: Tensor
    """1 for down, alpha / dim for up, (K, M)."""

    @property
    def length(self) -> int:
        """M."""
        return self.factors.shape[1]


def make_layout(runs: list[dict[str, Target]]) -> Layout:
    """Padded places of the layers that any of the runs trains.

    Args:
        runs: Layers of each run in the order of its flat tensor, by name.
    """
    slots = []
    for name in dict.fromkeys(name for run in runs for name in run):
        owners = [run[name] for run in runs if name in run]
        rank = max(target.dim for target in owners)
        weight = owners[0].layer.weight
        slots.append(Slot(name, rank, (rank, *weight.shape[1:]), len(weight)))
    length = sum(sum(slot.sizes) for slot in slots)
    factors = torch.ones((len(runs), length))
    places = []
    starts: dict[str, int] = {}
    start = 0
    for slot in slots:
        starts[slot.name] = start
        start += sum(slot.sizes)
    by_name = {slot.name: slot for slot in slots}
    for number, run in enumerate(runs):
        parts = []
        for name, target in run.items():
            slot, start = by_name[name], starts[name]
            downs, ups = slot.sizes
            middle = start + downs
            parts.append(torch.arange(start, start + downs // slot.rank * target.dim))
            rows = torch.arange(middle, middle + ups).view(slot.width, slot.rank)
            parts.append(rows[:, : target.dim].reshape(-1))
            factors[number, middle : middle + ups] = target.alpha / target.dim
        own = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)
        whole = len(own) == length and bool((own == torch.arange(length)).all())
        places.append(None if whole else own)
    return Layout(slots, places, factors)


class _Pack(torch.autograd.Function):
    """The numbers of all runs as one tensor for each matrix, and their gradients back again."""

    @staticmethod
    def forward(ctx: Any, layout: Layout, *flats: Tensor | None) -> tuple[Tensor, ...]:
        """Down (K, r, in[, kh, kw]) and up (K, out, r) of each layer."""
        some = next(flat for flat in flats if flat is not None)
        padded = some.new_zeros((len(flats), layout.length))
        for row, flat, places in zip(padded, flats, layout.places, strict=True):
            if flat is None:
                continue
            if places is None:
                row.copy_(flat)
            else:
                row.index_copy_(0, places.to(flat.device), flat)
        padded.mul_(layout.factors.to(padded))
        ctx.layout = layout
        ctx.trained = [flat is not None for flat in flats]
        sizes = [size for slot in layout.slots for size in slot.sizes]
        shapes = [s for slot in layout.slots for s in (slot.down_shape, (slot.width, slot.rank))]
        return tuple(
            part.view(len(flats), *shape)
            for part, shape in zip(padded.split(sizes, dim=1), shapes, strict=True)
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """The gradient of each run's flat tensor, (N,)."""
        layout: Layout = ctx.layout
        padded = torch.cat([gradient.flatten(1) for gradient in gradients], dim=1)  # (K, M)
        padded.mul_(layout.factors.to(padded))
        own: list[Tensor | None] = []
        for row, trained, places in zip(padded, ctx.trained, layout.places, strict=True):
            if not trained:
                own.append(None)
            else:
                own.append(row if places is None else row.index_select(0, places.to(row.device)))
        return None, *own
