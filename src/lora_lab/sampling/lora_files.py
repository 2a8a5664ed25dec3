"""LoRA files as sampling reads them."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from lora_lab.checkpoint.base_model import fingerprint
from lora_lab.lora_file import lora_hash, read_lora


@dataclass(frozen=True)
class LoRAFile:
    """A LoRA file as it was read."""

    path: Path
    tensors: dict[str, Tensor]
    hash: str
    """First 12 digits of its sshs_model_hash."""
    digest: str
    """First 16 digits of the fingerprint of its tensors."""


def read_lora_file(path: Path) -> LoRAFile:
    """Read a LoRA file and what it is recognised by.

    Raises:
        LabError: It is missing, damaged or no LoRA.
    """
    tensors, metadata = read_lora(path)
    return LoRAFile(path, tensors, lora_hash(tensors, metadata), fingerprint(tensors)[:16])


class LoRAFileCache:
    """Reads LoRA files and remembers the last few.

    Args:
        kept: Files that stay in memory, >= 1.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._files: dict[Path, LoRAFile] = {}

    def forget(self) -> None:
        """Read each file again when it is asked for."""
        self._files.clear()

    def read(self, path: Path) -> LoRAFile:
        """A LoRA file.

        Raises:
            LabError: It is missing, damaged or no LoRA.
        """
        if path not in self._files:
            while len(self._files) >= self._kept:
                self._files.pop(next(iter(self._files)))
            self._files[path] = read_lora_file(path)
        return self._files[path]
