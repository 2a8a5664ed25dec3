"""The LoRA: small trainable matrices beside the layers of a frozen base model.

W' x = W x + alpha / dim · up (down x), arXiv 2106.09685, section 4.1, applied by PEFT. 1x1
convolutions (proj_in and proj_out of the UNet) count as linear layers and keep 4-D weights.
LoHa and LoKr are LyCORIS', and so is DoRA (arXiv 2402.09353, eq. 5), with the norms of a weight's
columns: PEFT has those of its rows, which web UIs read in ways that differ from each other.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peft import LoraConfig
from peft.mapping import inject_adapter_in_model
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn
from torch.nn import Parameter

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.config import NetworkConfig
from lora_lab.errors import ConfigError
from lora_lab.lora_file.layouts import LOHA, LOKR, LORA
from lora_lab.lora_file.merge import named_layers
from lora_lab.network.dropout import PairedDropout
from lora_lab.network.initial import loha_start, lokr_start, lora_start
from lora_lab.network.layers import (
    ADAPTER,
    AdapterLayer,
    FreeLayer,
    LoRATensors,
    LycorisLayer,
    PeftLayer,
)
from lora_lab.network.merged import merge_where_it_pays
from lora_lab.network.start import fill_from_file, read_start
from lora_lab.network.targets import Target, find_targets, part_of

STARTS = {LORA: lora_start, LOHA: loha_start, LOKR: lokr_start}
"""How the layers of each kind begin."""


@dataclass(frozen=True)
class LoRANetwork:
    """The LoRA layers that were put into a base model; `with` takes them out at the end."""

    base: BaseModel
    config: NetworkConfig
    layers: dict[Target, AdapterLayer]
    dropout: PairedDropout
    beside: nn.ModuleList
    """Layers that are no part of the base's modules, in the order of `layers`: those of LyCORIS,
    and those of a stack."""

    def trainable(self, clip_skip: int) -> dict[str, list[Parameter]]:
        """The tensors that get a gradient, by part.

        With clip skip n the last n - 1 layers of the text encoder have no part in the output.
        Their LoRA stays as it began (no change of the base), and out of the optimizer.
        """
        parts: dict[str, list[Parameter]] = {"unet": [], "text_encoder": []}
        for target in self.used(clip_skip):
            parts[target.part] += self.layers[target].parameters().values()
        return parts

    def used(self, clip_skip: int) -> list[Target]:
        """The layers that have a part in the output."""
        last = self.base.text_encoder.config.num_hidden_layers - (clip_skip - 1)
        return [
            target
            for target in self.layers
            if target.part == "unet" or _layer_index(target.path) < last
        ]

    def state(self) -> dict[str, Tensor]:
        """The trained tensors themselves, in kohya's names, for a checkpoint to resume from."""
        return {
            f"{target.name}.{leaf}": parameter.detach()
            for target, layer in self.layers.items()
            for leaf, parameter in layer.parameters().items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for target, layer in self.layers.items():
            layer.load({leaf: state[f"{target.name}.{leaf}"] for leaf in layer.parameters()})

    def tensors(self) -> dict[str, Tensor]:
        """All LoRA tensors in kohya's names, such as down (dim, in[, kh, kw]), and the alphas.

        Copies on the CPU, in float32.
        """
        return {
            f"{target.name}.{leaf}": tensor
            for target, layer in self.layers.items()
            for leaf, tensor in layer.file_tensors().items()
        }

    def __enter__(self) -> "LoRANetwork":
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Put the base model's own layers back; their weights were never touched."""
        for target, layer in self.layers.items():
            if isinstance(layer, LycorisLayer):
                layer.module.restore()
            elif isinstance(layer, PeftLayer):
                parent, _, name = target.path.rpartition(".")
                module = part_of(self.base, target.part).get_submodule(parent)
                setattr(module, name, layer.module.base_layer)
        for part in self.base.family.lora_blocks:
            model = part_of(self.base, part)
            if "peft_config" in model.__dict__:
                del model.peft_config
            model.requires_grad_(False)


def inject_lora(
    base: BaseModel, config: NetworkConfig, seed: int, stacked: bool = False
) -> LoRANetwork:
    """Put a LoRA beside each layer that the config trains.

    Its first numbers come from a generator of its own for each tensor (`initial.py`), or from
    `network.weights`.

    Args:
        base: The base model.
        config: Kind, dims, alphas and parts.
        seed: Of the run.
        stacked: Whether the tensors are for a stack (`stacked.py`), which applies them; the base
            stays as it is. LoRA without DoRA alone can.

    Raises:
        ConfigError: A dim larger than every layer, nothing to be trained, or a missing package.
        LabError: `network.weights` can't be read or doesn't fit.
    """
    start = read_start(config)
    existing = named_layers(base)
    targets = find_targets(base, config, start)
    dropout = PairedDropout(config, seed)
    plain = config.name == LORA and not config.dora
    if stacked:
        assert plain, "only LoRA can be stacked"
        layers = _free_layers(targets)
    else:
        layers = _peft_layers(base, targets, config) if plain else _lycoris_layers(targets, config)
    for target, layer in layers.items():
        STARTS[config.name](layer.parameters(), seed, target.name)
        if isinstance(layer, PeftLayer):
            dropout.attach(layer.module.lora_A[ADAPTER], target.name)
            if not dropout.is_on:
                merge_where_it_pays(layer.module)
    network = LoRANetwork(base, config, layers, dropout, nn.ModuleList(_beside(layers)))
    if start:
        try:
            fill_from_file(layers, start, config, existing)
        except BaseException:
            network.remove()
            raise
    return network


def _free_layers(targets: list[Target]) -> dict[Target, AdapterLayer]:
    """Tensors that a stack applies."""
    layers: dict[Target, AdapterLayer] = {}
    for target in targets:
        width, *rest = target.layer.weight.shape
        layers[target] = FreeLayer(LoRATensors(target.dim, width, rest), target.alpha)
    return layers


def _peft_layers(
    base: BaseModel, targets: list[Target], config: NetworkConfig
) -> dict[Target, AdapterLayer]:
    """PEFT's layers in the place of the base's."""
    layers: dict[Target, AdapterLayer] = {}
    for part in base.family.lora_blocks:
        own = {target.path: target for target in targets if target.part == part}
        if not own:
            continue
        model = part_of(base, part)
        settings = LoraConfig(r=config.dim, target_modules=list(own))
        settings.lora_alpha = config.alpha
        settings.use_rslora = config.rslora
        settings.rank_pattern = _pattern({path: t.dim for path, t in own.items()}, config.dim)
        inject_adapter_in_model(settings, model, ADAPTER)
        for path, module in model.named_modules():
            if isinstance(module, LoraLayer):
                module.scaling[ADAPTER] = own[path].alpha / own[path].dim
                layers[own[path]] = PeftLayer(module, own[path].alpha)
    return layers


def _pattern(sizes: dict[str, int], default: int) -> dict[str, int]:
    """PEFT's way to give single layers a rank of their own: a regular expression of each path."""
    return {re.escape(path): size for path, size in sizes.items() if size != default}


def _lycoris_layers(targets: list[Target], config: NetworkConfig) -> dict[Target, AdapterLayer]:
    """LyCORIS' layers, which answer for the base's."""
    kind, arguments = _lycoris(config)
    layers: dict[Target, AdapterLayer] = {}
    for target in targets:
        module = kind(
            target.name, target.layer, lora_dim=target.dim, alpha=target.alpha, **arguments
        )
        module.op = _in_the_inputs_type(module.op)
        module.apply_to()
        layers[target] = LycorisLayer(module)
    return layers


def _in_the_inputs_type(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A linear or convolution that takes a weight of another number format than its input.

    Over a base in bf16, DoRA computes its weight in 32 bits.
    """

    def cast(x: Tensor, weight: Tensor, bias: Tensor | None, **arguments: Any) -> Tensor:
        return op(x, weight.to(x.dtype), bias, **arguments)

    return cast


def _lycoris(config: NetworkConfig) -> tuple[Any, dict[str, Any]]:
    """LyCORIS' class and its arguments beyond dim and alpha.

    Raises:
        ConfigError: Lycoris-lora isn't installed.
    """
    try:
        from lycoris.modules.locon import LoConModule
        from lycoris.modules.loha import LohaModule
        from lycoris.modules.lokr import LokrModule
    except ImportError as error:
        asked = "network.dora=true" if config.dora else f"network={config.name}"
        raise ConfigError(
            f"{asked} needs the package lycoris-lora: pip install 'lora-lab[lycoris]'"
        ) from error
    if config.name == LORA:
        return LoConModule, {"weight_decompose": True, "wd_on_out": False}
    if config.name == LOHA:
        return LohaModule, {}
    return LokrModule, {"factor": config.factor}


def _beside(layers: dict[Target, AdapterLayer]) -> list[nn.Module]:
    kinds = LycorisLayer | FreeLayer
    return [layer.module for layer in layers.values() if isinstance(layer, kinds)]


def _layer_index(path: str) -> int:
    """Number of the text encoder's layer: ``encoder.layers.11.mlp.fc1`` -> 11."""
    return int(path.split("layers.", 1)[1].split(".", 1)[0])
