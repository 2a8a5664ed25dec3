"""The LoRA: which layers get one, how it begins, what is trained, and its tensors for the file."""

from lora_lab.network.file_metadata import network_metadata
from lora_lab.network.flat import flatten
from lora_lab.network.inject import LoRANetwork, inject_lora

__all__ = ["LoRANetwork", "flatten", "inject_lora", "network_metadata"]
