"""LoRAs in a base's weights: their change is added to them, and taken away exactly.

Merging costs nothing per step. The original tensors are set aside, not subtracted back, so that
`restore` brings back every bit.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from lora_lab.checkpoint.base_model import BaseModel, fingerprint, load_base
from lora_lab.config import MergeConfig, ModelConfig, SamplingConfig
from lora_lab.errors import LabError
from lora_lab.lora_file import kohya_key, read_lora
from lora_lab.lora_file.layouts import layer_changes


class LoRAMerger:
    """Puts LoRAs into a base model and takes them out.

    Args:
        base: A base model without LoRA layers. Its linear and convolution weights are replaced
            while LoRAs are applied.
    """

    def __init__(self, base: BaseModel) -> None:
        self._layers = named_layers(base)
        self._originals: dict[str, Tensor] = {}

    def apply(self, loras: Sequence[tuple[dict[str, Tensor], float]]) -> None:
        """Set the base to its own weights plus these LoRAs, whatever was applied before.

        Args:
            loras: (tensors of a kohya file, weight); weight 1 is as trained.

        Raises:
            LabError: A LoRA does not fit; the base then stands as without LoRAs.
        """
        self.restore()
        for name, weight in merged_weights(self._layers, loras).items():
            layer = self._layers[name]
            self._originals[name] = layer.weight.data
            layer.weight.data = weight

    def restore(self) -> None:
        """Bring back the base's own weights, bit for bit."""
        for name, weight in self._originals.items():
            self._layers[name].weight.data = weight
        self._originals.clear()

    def keep(self) -> None:
        """Make the weights as they stand the base's own."""
        self._originals.clear()


def merged_weights(
    layers: Mapping[str, nn.Linear | nn.Conv2d], loras: Sequence[tuple[dict[str, Tensor], float]]
) -> dict[str, Tensor]:
    """The weights of layers with LoRAs in them; the layers stay as they are.

    Args:
        layers: Those of a base model, by their names in a LoRA file.
        loras: (tensors of a kohya file, weight); weight 1 is as trained.

    Returns:
        Name -> weight, (out, in[, kh, kw]), of each layer that is changed.

    Raises:
        LabError: A LoRA does not fit.
    """
    weights: dict[str, Tensor] = {}
    for tensors, strength in loras:
        for name, change in layer_changes(tensors, "LoRA file").items():
            if name not in layers:
                raise LabError(
                    f"LoRA file of another architecture: the base has no module {name}; "
                    "choose a LoRA trained on this kind of checkpoint"
                )
            before = weights[name] if name in weights else layers[name].weight.data
            try:
                weights[name] = change.merged(before, strength)
            except ValueError as error:
                raise LabError(
                    f"LoRA file of another architecture: {name} {error}; "
                    "choose a LoRA trained on this kind of checkpoint"
                ) from None
    return weights


def load_model(checkpoint: str, settings: ModelConfig | SamplingConfig) -> BaseModel:
    """The base model that trains or draws: the one way to load it, with all that settings say.

    Args:
        checkpoint: A folder, a file, `embedded:<name>`, or the name of a repository on a hub.
        settings: allow_pickle, prediction_type and merge are read.

    Raises:
        LabError: The checkpoint or a LoRA to merge can't be read or doesn't fit.
    """
    base = load_base(
        checkpoint,
        allow_pickle=settings.allow_pickle,
        prediction_type=settings.prediction_type,
    )
    return with_merged(base, settings.merge or [])


def with_merged(base: BaseModel, merge: Sequence[MergeConfig]) -> BaseModel:
    """A base model with LoRA files merged into it for good, in the order of the list.

    Args:
        base: Loaded for this alone: its weights are replaced.
        merge: Files and their weights; none gives the base as it is.

    Returns:
        The base, whose fingerprint covers the files and their weights.

    Raises:
        LabError: A file can't be read or doesn't fit; names it.
    """
    if not merge:
        return base
    digest = hashlib.sha256(base.fingerprint.encode())
    merger = LoRAMerger(base)
    loras = []
    for item in merge:
        tensors, _ = read_lora(Path(item.file).expanduser())
        loras.append((tensors, item.weight))
        digest.update(f"{fingerprint(tensors)} {item.weight!r}".encode())
        try:
            merger.apply(loras)
        except LabError as error:
            raise LabError(f"model.merge: {item.file}: {error}") from None
    merger.keep()
    return replace(base, fingerprint=digest.hexdigest())


def named_layers(base: BaseModel) -> dict[str, nn.Linear | nn.Conv2d]:
    """Every linear and convolution layer of UNet and text encoder under its name in a LoRA file."""
    layers: dict[str, nn.Linear | nn.Conv2d] = {}
    for part, root in (("unet", base.unet), ("text_encoder", base.text_encoder)):
        for path, module in root.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                layers[kohya_key(part, path, "alpha").removesuffix(".alpha")] = module
    return layers
