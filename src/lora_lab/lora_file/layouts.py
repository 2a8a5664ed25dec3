"""What a LoRA file says about each layer, and the change of weight that follows from it.

Layouts, each with its formula (s = alpha / dim; without alpha, s = 1):

- LoRA: s · up @ down (arXiv 2106.09685), with `lora_mid` in Tucker form;
- LoHa: s · (w1_a @ w1_b) ∘ (w2_a @ w2_b) (arXiv 2108.06098, proposition 1, as in LyCORIS);
- LoKr: s · w1 ⊗ w2, each factor whole or of two matrices (arXiv 2309.14859, section 3.3);
- DoRA: any of them with `dora_scale` m: W' = m · (W + ΔW) / |W + ΔW| (arXiv 2402.09353, eq. 5).

Shapes: out and in channels, kh and kw sides of the kernel, dim the rank.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from lora_lab.checkpoint.families.sd15 import SD15
from lora_lab.errors import LabError

LORA, LOHA, LOKR = "lora", "loha", "lokr"
LEAVES = {
    LORA: ("lora_down.weight", "lora_up.weight", "lora_mid.weight"),
    LOHA: ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
    LOKR: (
        *("lokr_w1", "lokr_w1_a", "lokr_w1_b"),
        *("lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
    ),
}
KIND_OF = {leaf: kind for kind, leaves in LEAVES.items() for leaf in leaves}
REQUIRED = {LORA: LEAVES[LORA][:2], LOHA: LEAVES[LOHA][:4], LOKR: ()}
SHARED = ("alpha", "dora_scale")
OTHER_LAYOUTS = {
    "emb_params": "a textual inversion",
    "string_to_param": "a textual inversion",
    "model.diffusion_model.": "a whole checkpoint",
    "first_stage_model.": "a whole checkpoint",
    "control_model.": "a ControlNet",
    "unet.": "a LoRA in diffusers' own layout",
    "text_encoder.": "a LoRA in diffusers' own layout",
    "transformer.": "a LoRA in diffusers' own layout",
    "base_model.model.": "a LoRA in PEFT's own layout",
}


@dataclass(frozen=True)
class LayerChange:
    """What a LoRA file holds for one layer."""

    kind: str
    """lora, loha or lokr."""
    tensors: dict[str, Tensor]
    """Last part of the key, such as ``lora_down.weight`` -> tensor."""

    @property
    def dim(self) -> int | None:
        """The rank; None for a LoKr of two whole matrices, which has none."""
        for leaf in ("lora_down.weight", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
            if leaf in self.tensors:
                return int(self.tensors[leaf].shape[0])
        return None

    @property
    def alpha(self) -> float:
        """As in the file; a missing alpha means alpha = dim, as for kohya."""
        if "alpha" in self.tensors:
            return float(self.tensors["alpha"])
        return float(self.dim or 1)

    @property
    def scale(self) -> float:
        """Alpha / dim; 1 without a dim."""
        return 1.0 if self.dim is None else self.alpha / self.dim

    @property
    def dora_scale(self) -> Tensor | None:
        """The magnitudes of DoRA; None for the other kinds."""
        return self.tensors.get("dora_scale")

    def delta(self) -> Tensor:
        """The change of weight without its scale, fp32, (out, in[, kh, kw]) or (out, in·kh·kw).

        Raises:
            RuntimeError, IndexError: The shapes don't fit one another.
        """
        numbers = {leaf: tensor.to(torch.float32) for leaf, tensor in self.tensors.items()}
        if self.kind == LORA:
            return _lora(numbers)
        return _loha(numbers) if self.kind == LOHA else _lokr(numbers)

    def merged(self, weight: Tensor, strength: float) -> Tensor:
        """The weight with this change in it.

        Args:
            weight: Of the layer, (out, in[, kh, kw]).
            strength: 1 is as trained. DoRA is taken along the line from the old weight to the new,
                as ComfyUI and LyCORIS do.

        Raises:
            ValueError: The shapes don't fit; the text tells them.
        """
        try:
            delta = self.delta()
        except (RuntimeError, IndexError) as error:
            raise ValueError(f"its tensors don't fit one another ({error})") from None
        if not _same_layer(delta, weight):
            found, wanted = tuple(delta.shape), tuple(weight.shape)
            raise ValueError(f"changes a weight of shape {found}, the base has {wanted}")
        if self.dora_scale is None:
            change = strength * self.scale * delta
            return weight + change.reshape(weight.shape).to(weight)
        whole = weight.to(torch.float32)
        target = decompose(whole + self.scale * delta.reshape(weight.shape), self.dora_scale)
        return (whole + strength * (target - whole)).to(weight)


def decompose(weight: Tensor, dora_scale: Tensor) -> Tensor:
    """DoRA's magnitudes times the directions of a weight (arXiv 2402.09353, eq. 5).

    Args:
        weight: (out, in[, kh, kw]).
        dora_scale: (1, in[, 1, 1]) for norms of the columns, over all outputs, as in the paper; or
            (out, 1[, 1, 1]) for norms of the rows, as newer LyCORIS and PEFT train them.

    Raises:
        ValueError: dora_scale has neither shape.
    """
    rows = dora_scale.shape[0] == weight.shape[0] and dora_scale.numel() == weight.shape[0]
    if not rows and dora_scale.numel() != weight.shape[1]:
        raise ValueError(
            f"has a dora_scale of shape {tuple(dora_scale.shape)} for a weight of shape "
            f"{tuple(weight.shape)}"
        )
    kept = 0 if rows else 1
    others = [axis for axis in range(weight.ndim) if axis != kept]
    shape = [-1 if axis == kept else 1 for axis in range(weight.ndim)]
    norm = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
    return weight * (dora_scale.to(torch.float32).reshape(shape) / norm)


def layer_changes(tensors: dict[str, Tensor], source: str) -> dict[str, LayerChange]:
    """Group a file's tensors by layer.

    Args:
        tensors: Of a LoRA file.
        source: The file, for errors.

    Returns:
        Name of the layer, such as ``lora_unet_mid_block_attentions_0_proj_in`` -> what it holds.

    Raises:
        LabError: A key belongs to no layout, or a layer is incomplete; names the key.
    """
    if not tensors:
        raise LabError(f"{source} holds no tensors: train or download it again")
    leaves: dict[str, dict[str, Tensor]] = {}
    for key in tensors:
        name, _, leaf = key.partition(".")
        leaves.setdefault(name, {})[leaf] = tensors[key]
    return {name: _layer(name, found, source) for name, found in sorted(leaves.items())}


def _layer(name: str, found: dict[str, Tensor], source: str) -> LayerChange:
    """One layer, whole and of one layout."""
    first = sorted(found)[0]
    _refuse_other_files(f"{name}.{first}" if first else name, source)
    strange = sorted(leaf for leaf in found if leaf not in KIND_OF and leaf not in SHARED)
    if strange:
        raise LabError(
            f"{source}: key {name}.{strange[0]} does not belong to a layer of LoRA, DoRA, LoHa or "
            "LoKr in kohya's layout (lora_<module>.lora_down.weight, .hada_w1_a, .lokr_w1, .alpha, "
            ".dora_scale); other kinds cannot be read"
        )
    kinds = {KIND_OF[leaf]: leaf for leaf in sorted(found) if leaf in KIND_OF}
    if len(kinds) > 1:
        mixed = " and ".join(f"{name}.{leaf}" for leaf in kinds.values())
        raise LabError(f"{source} mixes {mixed} in one layer: download or train it again")
    kind = next(iter(kinds), LORA)
    missing = _missing(found, kind)
    if missing:
        raise LabError(f"{source} lacks key {name}.{missing[0]}: download or train it again")
    _refuse_shapes(name, found, source)
    return LayerChange(kind, found)


def _missing(found: dict[str, Tensor], kind: str) -> list[str]:
    """The tensors that a layer needs and lacks."""
    missing = [leaf for leaf in REQUIRED[kind] if leaf not in found]
    if kind == LOKR:
        for factor in ("lokr_w1", "lokr_w2"):
            if factor not in found:
                missing += [leaf for end in "ab" if (leaf := f"{factor}_{end}") not in found]
    return missing


def _refuse_shapes(name: str, found: dict[str, Tensor], source: str) -> None:
    """Refuse tensors that no layer can have: a factor without rows and columns, a rank of 0."""
    for leaf, tensor in sorted(found.items()):
        if leaf == "alpha":
            fits, wanted = tensor.numel() == 1, "one number"
        elif leaf == "dora_scale":
            fits, wanted = (
                tensor.ndim >= 1 and tensor.numel() > 0,
                "a number a row or column",
            )
        else:
            fits, wanted = tensor.ndim >= 2 and tensor.numel() > 0, "two sides or more, none of 0"
        if not fits:
            raise LabError(
                f"{source}: key {name}.{leaf} must hold {wanted}, its shape is "
                f"{tuple(tensor.shape)}: download or train it again"
            )
        if tensor.is_complex() or tensor.dtype == torch.bool:
            raise LabError(
                f"{source}: key {name}.{leaf} must hold real numbers, got {tensor.dtype}: "
                "download or train it again"
            )


def _refuse_other_files(key: str, source: str) -> None:
    """Name what a file is that isn't a LoRA for our family of base models."""
    for start, kind in {**SD15.other_loras, **OTHER_LAYOUTS}.items():
        if key.startswith(start):
            raise LabError(
                f"{source} is {kind} (key {key}): name a LoRA in kohya's layout that was trained "
                f"on {SD15.name}"
            )
    prefixes = tuple(SD15.lora_prefixes.values())
    if not key.startswith(prefixes):
        raise LabError(
            f"{source}: key {key} does not belong to a LoRA in kohya's layout, whose keys begin "
            f"with {' or '.join(prefixes)}: name another file"
        )


def _same_layer(delta: Tensor, weight: Tensor) -> bool:
    """Whether a change fits a weight; 1x1 convolutions count as linear layers."""
    same = delta.shape[0] == weight.shape[0] and delta.numel() == weight.numel()
    if delta.ndim == 2:
        return same and delta.shape[1] in (weight.shape[1], prod(weight.shape[1:]))
    return same and delta.shape[1] == weight.shape[1]


def _lora(t: dict[str, Tensor]) -> Tensor:
    down, up = t["lora_down.weight"], t["lora_up.weight"]
    if "lora_mid.weight" in t:
        mid = t["lora_mid.weight"]  # (dim, dim, kh, kw)
        return torch.einsum("mnhw,ni,om->oihw", mid, down.flatten(1), up.flatten(1))
    delta = up.flatten(1) @ down.flatten(1)
    return delta.reshape(up.shape[0], *down.shape[1:])


def _loha(t: dict[str, Tensor]) -> Tensor:
    if "hada_t1" in t:  # the a's are (dim, out), the b's (dim, in), the t's (dim, dim, kh, kw)
        halves = [
            torch.einsum("mnhw,ni,mo->oihw", t[f"hada_t{n}"], t[f"hada_w{n}_b"], t[f"hada_w{n}_a"])
            for n in (1, 2)
        ]
        return halves[0] * halves[1]
    return (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"])


def _lokr(t: dict[str, Tensor]) -> Tensor:
    first = t["lokr_w1"] if "lokr_w1" in t else t["lokr_w1_a"] @ t["lokr_w1_b"]
    if "lokr_w2" in t:
        second = t["lokr_w2"]
    elif "lokr_t2" in t:
        second = torch.einsum("mnhw,ni,mo->oihw", t["lokr_t2"], t["lokr_w2_b"], t["lokr_w2_a"])
    else:
        second = t["lokr_w2_a"] @ t["lokr_w2_b"].flatten(1)
    if second.ndim > 2:
        first = first[..., None, None]
    return torch.kron(first.contiguous(), second.contiguous())
