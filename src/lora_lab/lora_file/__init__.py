"""The kohya LoRA file: keys, layouts, metadata, hashes, merging into a base."""

from lora_lab.lora_file.file import (
    kohya_key,
    lora_hash,
    lora_hashes,
    read_lora,
    write_lora,
)
from lora_lab.lora_file.training_metadata import TrainingFacts, build_metadata

__all__ = [
    "TrainingFacts",
    "build_metadata",
    "kohya_key",
    "lora_hash",
    "lora_hashes",
    "read_lora",
    "write_lora",
]
