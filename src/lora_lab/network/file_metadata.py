"""What a LoRA file's metadata say of its network, as sd-scripts and LyCORIS write it."""

from typing import Any

from lora_lab.lora_file.layouts import LORA
from lora_lab.network.inject import LoRANetwork
from lora_lab.network.targets import kernel

LORA_MODULE, LYCORIS_MODULE = "networks.lora", "lycoris.kohya"


def network_metadata(network: LoRANetwork) -> dict[str, Any]:
    """The `ss_network_*` values.

    Dim and alpha are those of the file; where layers differ in them they are "Dynamic", which is
    what kohya's tools write for it. DoRA, LoHa and LoKr are LyCORIS' module, because it, and not
    sd-scripts' own, reads their keys.
    """
    config = network.config
    plain = config.name == LORA and not config.dora
    linear = [target for target in network.layers if kernel(target.layer) == 1]
    convolutions = [target for target in network.layers if kernel(target.layer) > 1]
    arguments: dict[str, Any] = {}
    if not plain:
        arguments["algo"] = config.name
    if convolutions:
        arguments["conv_dim"] = _shared([target.dim for target in convolutions])
        arguments["conv_alpha"] = _shared([target.alpha for target in convolutions])
    for key, value in (
        ("rank_dropout", config.rank_dropout),
        ("module_dropout", config.module_dropout),
        ("rs_lora", config.rslora),
        ("dora_wd", config.dora),
        ("factor", config.factor if config.name == "lokr" else None),
    ):
        if value:
            arguments[key] = value
    if config.dora:
        arguments["wd_on_output"] = False
    told = {
        "ss_network_module": LORA_MODULE if plain else LYCORIS_MODULE,
        "ss_network_dim": _shared([target.dim for target in linear]),
        "ss_network_alpha": _shared([target.alpha for target in linear]),
        "ss_network_dropout": config.dropout or None,
    }
    if arguments:  # as given on sd-scripts' command line: texts
        told["ss_network_args"] = {key: str(value) for key, value in arguments.items()}
    return told


def _shared(values: list[Any]) -> Any:
    """The value that all have; None without any."""
    if not values:
        return None
    return values[0] if len(set(values)) == 1 else "Dynamic"
