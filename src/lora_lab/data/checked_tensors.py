"""Tensors that are kept for later runs, with a checksum: a flipped bit is noticed on reading.

The file is an ordinary safetensors file; the checksum stands in its metadata.
"""

import hashlib
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lora_lab.files import require_regular

CHECKSUM = "sha256"


def save_checked(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors and their checksum.

    Args:
        tensors: On the CPU.
        path: The file, which should get its name when it is whole.
    """
    save_file(tensors, path, {CHECKSUM: tensors_digest(tensors)})


def load_checked(path: Path) -> dict[str, Tensor]:
    """Read tensors that ``save_checked`` wrote.

    Raises:
        SafetensorError: The file is damaged.
        OSError: It can't be read, or is no regular file.
        ValueError: Its checksum is missing or another one.
    """
    require_regular(path)
    with safe_open(path, framework="pt") as file:
        told = (file.metadata() or {}).get(CHECKSUM)
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if told is None:
        raise ValueError("it has no checksum")
    if told != tensors_digest(tensors):
        raise ValueError("its checksum is wrong")
    return tensors


def tensors_digest(tensors: dict[str, Tensor]) -> str:
    """sha256 over the names, shapes and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
