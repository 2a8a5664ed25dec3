"""Textual inversions: files whose name, written in a prompt, stands for learned vectors.

Shapes: n vectors, C hidden size of the text encoder.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lora_lab.errors import LabError
from lora_lab.files import require_regular

CHUNK = 75
"""Tokens in a chunk, without the start and the end token."""


@dataclass(frozen=True)
class Embedding:
    """One textual inversion."""

    name: str
    """What stands for it in a prompt: the file's name without its ending."""
    vectors: Tensor
    """fp32, (n, C)."""


def read_embeddings(paths: Iterable[Path], width: int) -> list[Embedding]:
    """Read textual inversions: files, and folders of files.

    Args:
        paths: .safetensors files, or folders that hold some.
        width: C of the text encoder that will use them.

    Raises:
        LabError: A file can't be read or belongs to another kind of checkpoint; two have one name.
    """
    found: dict[str, Path] = {}
    for path in paths:
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        for file in files:
            if file.stem in found:
                raise LabError(
                    f"{found[file.stem]} and {file} are both called {file.stem}: rename one of them"
                )
            found[file.stem] = file
    return [read_embedding(file, width) for file in found.values()]


def read_embedding(path: Path, width: int) -> Embedding:
    """Read one textual inversion, as A1111 (`emb_params`) or diffusers (`<name>`) writes it.

    Raises:
        LabError: The file is missing, no safetensors file, no textual inversion, or made for
            another text encoder.
    """
    if path.suffix != ".safetensors":
        raise LabError(f"{path} must be a .safetensors file: convert it, pickles can run code")
    try:
        require_regular(path)
        with safe_open(str(path), framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise LabError(f"{path} can't be read as a textual inversion ({error})") from None
    if {"clip_l", "clip_g"} & tensors.keys():
        raise LabError(f"{path} is a textual inversion for SDXL: choose one for SD 1.5")
    if len(tensors) != 1:
        raise LabError(
            f"{path} holds {len(tensors)} tensors, a textual inversion holds one: "
            "choose a file that A1111 or diffusers wrote"
        )
    vectors = torch.atleast_2d(next(iter(tensors.values())).to(torch.float32))
    if vectors.ndim != 2 or not 1 <= len(vectors) <= CHUNK or vectors.shape[1] != width:
        raise LabError(
            f"{path} holds vectors of shape {tuple(vectors.shape)}, this text encoder takes 1 to "
            f"{CHUNK} of {width}: choose one for this kind of checkpoint"
        )
    return Embedding(path.stem, vectors)
