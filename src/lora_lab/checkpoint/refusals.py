"""What a file or folder is that can't serve as a base checkpoint, told by its keys and shapes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_lab.checkpoint.families.description import Family
from lora_lab.checkpoint.families.sd15 import TEXT, UNET, VAE
from lora_lab.errors import LabError
from lora_lab.files import read_json

CONV_IN = f"{UNET}input_blocks.0.0.weight"
CONTEXT = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"

Shapes = Mapping[str, tuple[int, ...]]
"""Key -> shape, as a file's header tells them."""


@dataclass(frozen=True)
class OtherFile:
    """A kind of file that users have and that no family of ours can read as a base checkpoint."""

    name: str
    fits: Callable[[Shapes], bool]
    next_step: str | None = None
    """None: the family's own."""


def _begins(*starts: str) -> Callable[[Shapes], bool]:
    return lambda shapes: any(key.startswith(starts) for key in shapes)


def _ends(*ends: str) -> Callable[[Shapes], bool]:
    return lambda shapes: any(key.endswith(ends) for key in shapes)


def _size(key: str, axis: int, size: int) -> Callable[[Shapes], bool]:
    return lambda shapes: key in shapes and len(shapes[key]) > axis and shapes[key][axis] == size


def _any(*tests: Callable[[Shapes], bool]) -> Callable[[Shapes], bool]:
    return lambda shapes: any(test(shapes) for test in tests)


FILE_KINDS = (
    OtherFile(
        "a LoRA, not a checkpoint",
        _ends("lora_down.weight", "lora_A.weight", "hada_w1_a", "lokr_w1", "lokr_w1_a"),
        "name the checkpoint that it belongs to, and the LoRA as network.weights, model.merge or "
        "sample.py lora=",
    ),
    OtherFile("a textual inversion, not a checkpoint", _begins("emb_params", "string_to_param")),
    OtherFile(
        "a ControlNet, not a checkpoint", _begins("control_model.", "controlnet_cond_embedding.")
    ),
    OtherFile(
        "a motion module, not a checkpoint", lambda s: any("motion_modules." in key for key in s)
    ),
    OtherFile("Flux", _begins("double_blocks.", f"{UNET}double_blocks.")),
    OtherFile("Stable Diffusion 3", _begins("joint_blocks.", f"{UNET}joint_blocks.")),
    OtherFile("SDXL", _begins("conditioner.embedders.1.")),
    OtherFile("the SDXL refiner", _begins("conditioner.embedders.0.model.")),
    OtherFile("SDXL", _begins(f"{UNET}label_emb.")),
    OtherFile("Stable Diffusion 2.x", _any(_begins(f"{TEXT}model."), _size(CONTEXT, 1, 1024))),
    OtherFile(
        "an inpainting checkpoint (its UNet takes 9 channels, not 4)",
        _size(CONV_IN, 1, 9),
    ),
    OtherFile(
        "an instruct-pix2pix checkpoint (its UNet takes 8 channels, not 4)", _size(CONV_IN, 1, 8)
    ),
    OtherFile(
        "a single part of a diffusers folder",
        _begins("down_blocks.", "encoder.down_blocks.", "text_model.", "encoder.layers."),
        "name the folder above it, which holds unet, text_encoder, tokenizer, vae and scheduler",
    ),
    OtherFile(
        "a VAE, not a checkpoint",
        lambda s: all(
            k.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv.", "loss.", VAE))
            for k in s
        ),
    ),
)
"""In the order in which they are tried."""


def refuse_other_file(path: Path, shapes: Shapes, family: Family) -> None:
    """Refuse a single file that isn't a whole checkpoint of a family.

    Raises:
        LabError: Names what it is instead, or which part it lacks.
    """
    for kind in FILE_KINDS:
        if kind.fits(shapes):
            raise LabError(f"{path} is {kind.name}: {kind.next_step or family.next_step}")
    for part, start in family.needed.items():
        if not any(key.startswith(start) for key in shapes):
            raise LabError(
                f"{path} lacks {part} (no key {start}): it is not a full {family.name} "
                "checkpoint; download the full file"
            )


def refuse_other_folder(folder: Path, family: Family) -> None:
    """Refuse a diffusers folder of another architecture.

    Raises:
        LabError: Names what it is instead.
    """
    kind = None
    if (folder / "transformer").is_dir():
        kind = _pipeline(folder) or "a model with a transformer (SD3, Flux or the like)"
    elif (folder / "text_encoder_2").is_dir():
        kind = "SDXL"
    else:
        kind = _unet_kind(_json(folder / "unet" / "config.json"))
    if kind is not None:
        raise LabError(f"{folder} is {kind}: {family.next_step}")


def _unet_kind(config: dict[str, Any]) -> str | None:
    channels = config.get("in_channels")
    if channels == 9:
        return "an inpainting checkpoint (its UNet takes 9 channels, not 4)"
    if channels == 8 and config.get("out_channels") == 4:
        return "an instruct-pix2pix checkpoint (its UNet takes 8 channels, not 4)"
    if config.get("addition_embed_type") == "text_time":
        return "SDXL"
    if config.get("cross_attention_dim") == 1024:
        return "Stable Diffusion 2.x"
    return None


def _pipeline(folder: Path) -> str | None:
    """The class of the pipeline that a folder's index names."""
    index = _json(folder / "model_index.json")
    return str(index["_class_name"]) if "_class_name" in index else None


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is none, which its own reader will tell."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
