"""The optimizer: its settings and their ranges."""

from dataclasses import dataclass

from lora_lab.config.rules import Rule, above, at_least, one_of, or_null, shown

OPTIMIZERS = ("dadapt_adam", "prodigy", "adamw")
WITHOUT_D = ("adamw",)


@dataclass
class OptimizerConfig:
    """The optimizer and its own rate."""

    name: str
    """Optimizer: dadapt_adam, prodigy or adamw; chosen by optimizer=<name>."""
    lr: float
    """Learning rate, a factor on d for dadapt_adam and prodigy; >= 0."""
    betas: list[float]
    """Decay rates of Adam's two running means; two numbers, each >= 0 and < 1."""
    eps: float
    """Added to Adam's denominator; > 0."""
    weight_decay: float
    """Weight decay per step, a factor on the learning rate; >= 0."""
    decouple: bool
    """Decay weights as AdamW does instead of through the gradient; true or false."""
    use_bias_correction: bool
    """Correct Adam's running means for their start at zero; true or false."""
    growth_rate: float | None
    """Most that d may grow by in a step, a factor; > 1; null: unlimited, or no d (adamw)."""
    d0: float | None
    """First estimate of d, which only grows; > 0; null: the optimizer has no d (adamw)."""
    text_encoder_lr: float
    """Learning rate of the text encoder as a factor on lr; >= 0."""


RULES = (
    one_of("name", OPTIMIZERS),
    at_least("lr", 0),
    Rule(
        "betas",
        "two numbers >= 0 and < 1, such as [0.9,0.99]",
        lambda value: len(value) == 2 and all(0 <= beta < 1 for beta in value),
    ),
    above("eps", 0),
    at_least("weight_decay", 0),
    or_null(above("growth_rate", 1)),
    or_null(above("d0", 0)),
    at_least("text_encoder_lr", 0),
)


def problems(optimizer: OptimizerConfig) -> list[str]:
    """Returns one line for each pair of settings that don't go together."""
    without_d = optimizer.name in WITHOUT_D
    found = []
    for key, value in (("growth_rate", optimizer.growth_rate), ("d0", optimizer.d0)):
        if without_d and value is not None:
            found.append(
                f"optimizer.{key} must be null with optimizer={optimizer.name}, which has no d, "
                f"got {shown(value)}"
            )
    if not without_d and optimizer.d0 is None:
        found.append(f"optimizer.d0 must be > 0 with optimizer={optimizer.name}, got null")
    return found
