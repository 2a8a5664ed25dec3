"""What a PNG file tells about the image: A1111's `parameters` and a chunk of our own.

Web UIs, Civitai and image viewers read `parameters`. `lora_lab` holds the same as JSON, exact and
complete, for our own programs.
"""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from lora_lab.errors import LabError
from lora_lab.files import atomic_path, open_regular, parse_json
from lora_lab.images.opening import open_picture

CHUNK = "lora_lab"
_END = b"\x00\x00\x00\x00IEND\xaeB\x60\x82"
"""What every whole PNG ends with."""


@dataclass(frozen=True)
class ImageRecipe:
    """All that an image was made from: equal recipes make equal images."""

    prompt: str
    negative: str
    steps: int
    sampler: str
    guidance: float
    seed: int
    width: int
    height: int
    clip_skip: int
    model: str
    model_hash: str
    """First 10 hex digits of the base's fingerprint."""
    lora: str | None
    """File name without its ending; None for the bare base."""
    lora_hash: str | None
    """First 12 hex digits of its sshs_model_hash."""
    lora_weight: float
    lora_digest: str | None
    """First 16 hex digits of the fingerprint of its tensors."""
    names: dict[str, str]
    """What the prompt may name -> hash: LoRAs, and textual inversions as `embedding:<name>`."""
    vae_hash: str
    """First 10 hex digits of the VAE's fingerprint."""
    batch_place: int
    """Number of the image in its batch, from 0."""
    batch_size: int
    """Images of its batch; with place, size and threads the same, the same bytes come out."""
    threads: int
    """PyTorch's CPU threads; 1 for an image that was drawn beside others on a thread of its own."""
    torch: str
    """PyTorch's version."""

    @property
    def key(self) -> str:
        """10 hex digits that two images share if only rounding can differ."""
        values = asdict(self)
        for name in ("batch_place", "batch_size", "threads", "torch"):
            del values[name]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:10]

    def at(self, batch_place: int, batch_size: int) -> "ImageRecipe":
        """The same with its place in a batch."""
        return replace(self, batch_place=batch_place, batch_size=batch_size)


def parameters_text(recipe: ImageRecipe) -> str:
    """The text of the `parameters` chunk, as A1111 writes and parses it."""
    lora = f"<lora:{recipe.lora}:{recipe.lora_weight:g}>" if recipe.lora else ""
    fields: dict[str, str] = {
        "Steps": str(recipe.steps),
        "Sampler": recipe.sampler,
        "CFG scale": f"{recipe.guidance:g}",
        "Seed": str(recipe.seed),
        "Size": f"{recipe.width}x{recipe.height}",
        "Model hash": recipe.model_hash,
        "Model": recipe.model,
        "Clip skip": str(recipe.clip_skip),
        "RNG": "CPU",
    }
    loras = {name: digest for name, digest in recipe.names.items() if ":" not in name}
    if recipe.lora and recipe.lora_hash:
        loras[recipe.lora] = recipe.lora_hash
    if loras:
        fields["Lora hashes"] = ", ".join(f"{name}: {digest}" for name, digest in loras.items())
    last = ", ".join(f"{name}: {_quoted(value)}" for name, value in fields.items())
    negative = [f"Negative prompt: {recipe.negative}"] if recipe.negative else []
    return "\n".join([" ".join(filter(None, [recipe.prompt, lora])), *negative, last])


def _quoted(value: str) -> str:
    """Values with a comma, a colon or what doesn't print are written as JSON strings."""
    if value.isprintable() and not re.search(r"[,:]", value):
        return value
    return json.dumps(value, ensure_ascii=not value.isprintable())


def parse_parameters(text: str) -> dict[str, str]:
    """Read a `parameters` chunk, ours or A1111's.

    Returns:
        "Prompt", "Negative prompt" and the fields of the last line; empty strings where missing.
    """
    lines = text.strip().split("\n")
    fields = dict(re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)', lines[-1]))
    if len(fields) < 3:
        fields = {}
    else:
        lines = lines[:-1]
    prompt, _, negative = "\n".join(lines).partition("Negative prompt:")
    values = {name: _unquoted(value.strip()) for name, value in fields.items()}
    return {"Prompt": prompt.strip(), "Negative prompt": negative.strip(), **values}


def _unquoted(value: str) -> str:
    if not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return str(parse_json(value))
    except ValueError:
        return value


def write_image(path: Path, image: Image.Image, recipe: ImageRecipe) -> None:
    """Write a PNG with both chunks, whole or not at all.

    Text outside Latin-1 goes into iTXt chunks, which the same programs read.

    Raises:
        LabError: The folder is not writable or the disk is full.
    """
    info = PngInfo()
    info.add_text("parameters", parameters_text(recipe))
    info.add_text(CHUNK, json.dumps(asdict(recipe), ensure_ascii=True, sort_keys=True))
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=info)


def read_recipe(path: Path) -> ImageRecipe | None:
    """The recipe of an image that we wrote; None if it is missing, damaged or another's.

    A recipe may come from somebody else: each value has its type and a range.
    """
    try:
        with open_regular(path) as file:
            file.seek(-len(_END), os.SEEK_END)
            whole = file.read() == _END
        with open_picture(path) as image:
            text = image.info.get(CHUNK)
        if not whole or not isinstance(text, str):
            return None
        return _checked(parse_json(text))
    except (OSError, UnidentifiedImageError, ValueError, TypeError, KeyError, SyntaxError):
        return None


_LIMITS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("steps", "batch_size"), (1, 1000)),
    **dict.fromkeys(("width", "height"), (8, 4096)),
    **{
        "seed": (0, 2**32 - 1),
        "clip_skip": (1, 100),
        "batch_place": (0, 999),
        "threads": (1, 4096),
    },
}
"""Whole numbers of a recipe -> least and largest."""
_LARGEST = 1e6
"""Of its other numbers, below 0 too."""


def _checked(values: Any) -> ImageRecipe:
    """A recipe whose values are of their types and within their limits.

    Raises:
        ValueError, TypeError: They are not.
    """
    recipe = ImageRecipe(**values)
    kinds = get_type_hints(ImageRecipe)
    for name, value in asdict(recipe).items():
        kind = dict if name == "names" else kinds[name]
        number = isinstance(value, int) and kind is float
        if isinstance(value, bool) or not (number or isinstance(value, kind)):
            raise TypeError(f"{name} is of another type")
        least, largest = _LIMITS.get(name, (-_LARGEST, _LARGEST))
        if isinstance(value, int | float) and not least <= value <= largest:
            raise ValueError(f"{name} is out of range")
    if not all(isinstance(text, str) for pair in recipe.names.items() for text in pair):
        raise TypeError("names holds other things than texts")
    if recipe.lora is not None and Path(recipe.lora).name != recipe.lora:
        raise ValueError("lora is no file name")
    if recipe.batch_place >= recipe.batch_size or recipe.width % 8 or recipe.height % 8:
        raise ValueError("its numbers don't go together")
    return recipe


def read_parameters(path: Path) -> dict[str, str]:
    """The fields of a PNG's `parameters` chunk.

    Raises:
        LabError: The file cannot be read or has no such chunk.
    """
    try:
        with open_picture(path) as image:
            image.load()
            text = image.info.get("parameters")
    except (OSError, ValueError, SyntaxError) as error:
        raise LabError(f"{path} cannot be read as an image ({error})") from None
    if not isinstance(text, str):
        raise LabError(f"{path} has no `parameters` chunk: it is not made by a web UI")
    return parse_parameters(text)
