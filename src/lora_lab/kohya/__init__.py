"""What LoRA Lab shares with kohya-ss/sd-scripts: the LoRA file, its metadata and the settings."""

from lora_lab.kohya.lora_file import (
    PREFIXES,
    kohya_key,
    lora_hash,
    lora_hashes,
    read_lora,
    write_lora,
)
from lora_lab.kohya.metadata import TrainingFacts, build_metadata

__all__ = [
    "PREFIXES",
    "TrainingFacts",
    "build_metadata",
    "kohya_key",
    "lora_hash",
    "lora_hashes",
    "read_lora",
    "write_lora",
]
