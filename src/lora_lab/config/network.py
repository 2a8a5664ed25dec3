"""The LoRA: its settings and their ranges."""

from dataclasses import dataclass

from lora_lab.config.rules import Rule, above, at_least, one_of, or_null, shown, text

NETWORKS = ("lora", "loha", "lokr")


@dataclass
class NetworkConfig:
    """The LoRA."""

    name: str
    """Kind of layer: lora, loha or lokr; chosen by network=lora, lora_conv, loha or lokr."""
    dim: int
    """Rank of the LoRA matrices; >= 1, at most the smaller side of the base's largest layer."""
    alpha: float
    """The LoRA's weight is alpha / dim; > 0; '${network.dim}' ties it to dim."""
    conv_dim: int | None
    """Rank for 3x3 convolutions, which brings in the residual blocks; >= 1; null: without."""
    conv_alpha: float | None
    """The weight of 3x3 convolutions is conv_alpha / conv_dim; > 0; null: without."""
    train_unet: bool
    """Train the linear layers of the UNet; true or false."""
    train_text_encoder: bool
    """Train the linear layers of the text encoder; true or false."""
    dropout: float
    """Share of the values between down and up that a step leaves out; >= 0, < 1, 0 is off."""
    rank_dropout: float
    """Share of the ranks that a step leaves out, for each image; >= 0, < 1, 0 is off."""
    module_dropout: float
    """Share of the layers whose LoRA a step leaves out; >= 0, < 1, 0 is off."""
    rslora: bool
    """Weight by alpha / sqrt(dim) (rsLoRA), folded into the alpha of the file; true or false."""
    dora: bool
    """Train the norms of the weights' columns beside the LoRA (DoRA); true or false."""
    factor: int
    """LoKr: side of the small matrix of each layer; >= 1, or -1 for about the root of its sides."""
    weights: str | None
    """LoRA file that training starts from; a path; null: from the start."""
    dim_from_weights: bool
    """Take layers, dims and alphas from network.weights; true or false."""


def _share(key: str) -> Rule:
    return Rule(key, ">= 0 and < 1", lambda value: 0 <= value < 1)


RULES = (
    one_of("name", NETWORKS),
    at_least("dim", 1),
    above("alpha", 0),
    or_null(at_least("conv_dim", 1)),
    or_null(above("conv_alpha", 0)),
    _share("dropout"),
    _share("rank_dropout"),
    _share("module_dropout"),
    Rule("factor", ">= 1, or -1", lambda value: value >= 1 or value == -1),
    or_null(text("weights")),
)


def problems(network: NetworkConfig) -> list[str]:
    """Return one line for each pair of settings that don't go together."""
    found = []
    if not (network.train_unet or network.train_text_encoder):
        found.append(
            "network.train_unet and network.train_text_encoder are both false, which leaves "
            "nothing to train; set one of them to true"
        )
    if (network.conv_dim is None) != (network.conv_alpha is None):
        found.append(
            f"network.conv_dim and network.conv_alpha must both be null or both be numbers, got "
            f"{shown(network.conv_dim)} and {shown(network.conv_alpha)}"
        )
    if network.dim_from_weights and network.weights is None:
        found.append("network.dim_from_weights must be false without network.weights, got true")
    return found + _unusual(network)


def _unusual(network: NetworkConfig) -> list[str]:
    """Return one line for each kind of layer that can't honour a setting."""
    dropouts = [
        f"network.{key} must be 0 with {{}}, got {value}"
        for key in ("dropout", "rank_dropout", "module_dropout")
        if (value := getattr(network, key))
    ]
    if network.name == "lora":
        reason = "network.dora=true: its norm is that of the whole weight, nothing left out"
        return [line.format(reason) for line in dropouts] if network.dora else []
    reason = f"network={network.name}: LyCORIS draws its masks from a state that runs don't share"
    found = [line.format(reason) for line in dropouts]
    why = {
        "rslora": "its factor is derived for LoRA's product of two matrices",
        "dora": "its norms are trained beside LoRA alone",
    }
    for key, text_of_reason in why.items():
        if getattr(network, key):
            found.append(
                f"network.{key} must be false with network={network.name}, got true: "
                f"{text_of_reason}"
            )
    return found
