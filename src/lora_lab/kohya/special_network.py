"""The kind of LoRA, its parts, and LoRAs that are merged first: kohya's arguments as ours."""

from typing import Any

from lora_lab.kohya.translated import Translation
from lora_lab.kohya.values import is_empty, is_true, named_arguments, number

ALGORITHMS = {"lora": "lora", "locon": "lora", "loha": "loha", "lokr": "lokr"}


def take_network(left: dict[str, Any], result: Translation) -> None:
    """The kind of LoRA, and what kohya passes on to it as network_args."""
    module = str(left.pop("network_module", None) or "networks.lora")
    arguments = named_arguments(left.pop("network_args", None))
    kind = "lora" if module == "networks.lora" else str(arguments.pop("algo", "lora"))
    if module not in ("networks.lora", "lycoris.kohya") or kind not in ALGORITHMS:
        result.impossible["network_module"] = f"{module} {kind}: LoRA Lab has lora, loha and lokr"
    else:
        result.taken["network_module"] = "network"
    name = ALGORITHMS.get(kind, "lora")
    convolutions = {key: arguments.pop(key, None) for key in ("conv_dim", "conv_alpha")}
    if not is_empty(convolutions["conv_dim"]) and convolutions["conv_dim"]:
        alpha = convolutions["conv_alpha"]
        result.take("network.conv_dim", convolutions["conv_dim"], "network_args: conv_dim")
        result.take("network.conv_alpha", alpha or 1, "network_args: conv_alpha")
        name = "lora_conv" if name == "lora" else name
    result.groups["network"] = name
    for key in ("train_unet", "train_text_encoder"):
        arguments.pop(key, None)  # older files of ours; the rates say it
    for key in ("rank_dropout", "module_dropout"):
        given = arguments.pop(key, None)
        given = left.pop(key, None) if given is None else given
        value = 0.0 if is_empty(given) else number(given, 0.0)
        result.put(f"network.{key}", value, f"network_args: {key}")
    factor = arguments.pop("factor", None)
    if name == "lokr" and not is_empty(factor):
        result.take("network.factor", factor, "network_args: factor")
    _lora_kinds(module, kind, arguments, result)
    for argument, value in arguments.items():
        if not is_empty(value) and value is not False:
            left[argument] = value
    _parts(left, result)


def _lora_kinds(module: str, kind: str, arguments: dict[str, Any], result: Translation) -> None:
    """DoRA and rsLoRA, which LyCORIS reads for a LoRA; sd-scripts' own module knows neither."""
    lycoris = module == "lycoris.kohya" and ALGORITHMS.get(kind) == "lora"
    dora = is_true(arguments.pop("dora_wd", None)) and lycoris
    on_output = is_true(arguments.pop("wd_on_output", True))
    result.put("network.dora", dora, "network_args: dora_wd")
    if dora and on_output:
        result.impossible["network_args: wd_on_output"] = (
            "norms of the weight's rows: LoRA Lab trains those of its columns, which web UIs read"
        )
    rs = is_true(arguments.pop("rs_lora", None))
    result.put("network.rslora", rs and lycoris, "network_args: rs_lora")
    if rs and not lycoris:
        result.ignored["network_args: rs_lora"] = "the file's alpha holds it already"


def _parts(left: dict[str, Any], result: Translation) -> None:
    """Which of UNet and text encoder are trained."""
    for part, other in (("text_encoder", "unet"), ("unet", "text_encoder")):
        only = f"network_train_{other}_only"
        result.put(f"network.train_{part}", not is_true(left.pop(only, None)), only)


def take_merged(left: dict[str, Any], result: Translation) -> None:
    """LoRAs that are merged into the checkpoint first."""
    given = left.pop("base_weights", None)
    files = [] if is_empty(given) else given if isinstance(given, list) else [given]
    weights = left.pop("base_weights_multiplier", None)
    weights = [] if is_empty(weights) else weights if isinstance(weights, list) else [weights]
    padded = [*weights, *[1.0] * len(files)]
    merged = [
        {"file": str(file), "weight": number(weight, 1.0)}
        for file, weight in zip(files, padded, strict=False)
    ]
    result.put("model.merge", merged, "base_weights")
