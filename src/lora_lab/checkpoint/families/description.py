"""What must be known of a family of base models; each family is one file beside this one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

Config = Mapping[str, Any]
"""The config.json of a part, as diffusers writes it."""


@dataclass(frozen=True)
class Family:
    """A family of base models, as the reading of checkpoints, training, sampling and files see it.

    Parts are named as the folders of diffusers' layout.
    """

    name: str
    """As error messages say it."""
    configs: Path
    """Folder with each part's config and the tokenizer, for checkpoints that are a single file."""
    weight_stems: Mapping[str, str]
    """Part -> name of its weights' file in a diffusers folder, without ending."""
    build: Mapping[str, Callable[[dict[str, Any]], nn.Module]]
    """Part -> from its config to the module, with whatever weights the default device gives it."""
    needed: Mapping[str, str]
    """What a single file must hold, in words -> how a key of it begins."""
    split: Callable[[dict[str, Tensor], Path], dict[str, dict[str, Tensor]]]
    """From a single file's tensors and ``configs`` to each part's, under diffusers' names."""
    latent_factor: Callable[[Config], int]
    """From the VAE's config to the pixels of a latent, per side."""
    unet_factor: Callable[[Config], int]
    """From the UNet's config to what the sides of its latents are multiples of."""
    lora_names: Mapping[str, str]
    """Part -> how the names of its layers begin in kohya's LoRA files."""
    lora_prefixes: Mapping[str, str]
    """Part -> how every name of it begins in any LoRA file of the family, ours or not."""
    lora_blocks: Mapping[str, tuple[str, ...]]
    """Part -> classes inside of which every linear layer and 1x1 convolution gets a LoRA."""
    conv_blocks: tuple[str, ...]
    """Further classes of the UNet whose layers get one where ``network.conv_dim`` is set."""
    other_loras: Mapping[str, str]
    """How names begin in LoRA files of other families -> what such a file is."""
    architecture: str
    """``modelspec.architecture`` of a LoRA file."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that have weights, in the order in which they are read."""
        return tuple(self.build)

    @property
    def next_step(self) -> str:
        """What to do when a file or folder belongs to no such checkpoint."""
        return f"model.checkpoint must be {self.name} or a fine-tune of it"
