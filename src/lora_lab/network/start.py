"""A LoRA file that training starts from."""

import logging
from pathlib import Path

from torch import nn

from lora_lab.config import NetworkConfig
from lora_lab.errors import LabError
from lora_lab.lora_file import read_lora
from lora_lab.lora_file.layouts import LORA, LayerChange, layer_changes
from lora_lab.network.layers import AdapterLayer
from lora_lab.network.targets import Target

log = logging.getLogger(__name__)


def read_start(config: NetworkConfig) -> dict[str, LayerChange]:
    """The layers of `network.weights`; none when it is null.

    Raises:
        LabError: The file can't be read or holds another kind of layers than the network.
    """
    if config.weights is None:
        return {}
    path = Path(config.weights).expanduser()
    start = layer_changes(read_lora(path)[0], str(path))
    for name, layer in start.items():
        if layer.kind != config.name:
            raise LabError(
                f"{path}: {name} is a layer of {layer.kind}, but network={config.name} is trained: "
                f"set network={layer.kind} or name another file as network.weights"
            )
        if (layer.dora_scale is not None) != config.dora:
            has = "has" if layer.dora_scale is not None else "lacks"
            raise LabError(
                f"{path}: {name} {has} a dora_scale, but network.dora is "
                f"{str(config.dora).lower()}: set network.dora={str(not config.dora).lower()}"
            )
        if layer.dora_scale is not None and layer.dora_scale.shape[0] != 1:
            raise LabError(
                f"{path}: {name} has norms of a weight's rows, dora_scale of shape "
                f"{tuple(layer.dora_scale.shape)}; DoRA is trained here with those of its columns, "
                "so this file can be sampled but not trained further"
            )
        if layer.kind == LORA and "lora_mid.weight" in layer.tensors:
            raise LabError(
                f"{path}: {name} is in Tucker form (lora_mid), which can be sampled but not "
                "trained further: name another file as network.weights"
            )
    return start


def fill_from_file(
    layers: dict[Target, AdapterLayer],
    start: dict[str, LayerChange],
    config: NetworkConfig,
    existing: dict[str, nn.Linear | nn.Conv2d],
) -> None:
    """Let layers begin where a file ends.

    Layers that the file lacks begin as ever; layers of the file that aren't trained are refused.

    Args:
        layers: All layers of the network.
        start: From `read_start`.
        config: Names the file.
        existing: Every layer of the base by its name in a LoRA file.

    Raises:
        LabError: A layer of the file isn't in the base or isn't trained, or differs in shape, dim
            or alpha.
    """
    trained = {target.name: target for target in layers}
    for name, layer in start.items():
        if name not in existing:
            raise LabError(
                f"network.weights={config.weights}: the base has no layer {name}; "
                "name a LoRA that was trained on this kind of checkpoint"
            )
        _refuse_other_shape(name, layer, existing[name], config)
        if name not in trained:
            raise LabError(
                f"network.weights={config.weights} holds {name}, which these settings don't "
                "train: set network.train_unet, network.train_text_encoder or network=lora_conv "
                "with network.conv_dim so that they do, or network.dim_from_weights=true"
            )
        _refuse_other_sizes(trained[name], layer, config)
        layers[trained[name]].load(layer.tensors)
    fresh = len(trained) - len(start)
    log.info("%d layers start from %s, %d from new weights", len(start), config.weights, fresh)


def _refuse_other_shape(
    name: str, layer: LayerChange, module: nn.Linear | nn.Conv2d, config: NetworkConfig
) -> None:
    try:
        layer.merged(module.weight.detach(), 1.0)
    except ValueError as error:
        raise LabError(
            f"network.weights={config.weights}: {name} {error}; "
            "name a LoRA that was trained on this kind of checkpoint"
        ) from None


def _refuse_other_sizes(target: Target, layer: LayerChange, config: NetworkConfig) -> None:
    dim = target.dim if layer.dim is None else layer.dim
    if dim == target.dim and abs(layer.alpha - target.alpha) <= 1e-6 * target.alpha:
        return
    raise LabError(
        f"network.weights={config.weights}: {target.name} has dim {dim} and alpha "
        f"{layer.alpha:g}, these settings have dim {target.dim} and alpha {target.alpha:g}: set "
        "network.dim and network.alpha to the file's, or network.dim_from_weights=true"
    )
