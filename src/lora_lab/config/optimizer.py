"""The optimizer: its settings and their ranges."""

from dataclasses import dataclass
from typing import Any

from lora_lab.config.rules import Rule, above, at_least, one_of, or_null, shown

TAKES = {
    "dadapt_adam": "betas eps weight_decay decouple use_bias_correction growth_rate d0",
    "dadapt_adan": "betas eps weight_decay growth_rate d0",
    "dadapt_lion": "betas weight_decay d0",
    "dadapt_sgd": "momentum weight_decay growth_rate d0",
    "dadapt_adagrad": "momentum eps weight_decay growth_rate d0",
    "prodigy": "betas eps weight_decay decouple use_bias_correction growth_rate d0 d_coef "
    "safeguard_warmup",
    "schedule_free_adamw": "betas eps weight_decay",
    "adamw": "betas eps weight_decay",
    "adamw_8bit": "betas eps weight_decay",
    "adafactor": "weight_decay",
    "lion": "betas weight_decay",
    "sgd": "momentum weight_decay",
}
"""Optimizer -> the settings below that it has; the others must be null."""
OPTIMIZERS = (*TAKES, "custom")
ADAPTIVE = tuple(name for name, keys in TAKES.items() if "d0" in keys.split())
"""Optimizers that find their rate d by themselves."""
NEEDS_LR_ABOVE_0 = ("dadapt_adam", "dadapt_adan", "dadapt_sgd", "dadapt_adagrad", "prodigy", "lion")
"""Whose libraries refuse a learning rate of 0."""
ONE_RATE = tuple(name for name in ADAPTIVE if name != "dadapt_adam")
"""Optimizers that have one rate for all groups, and no layer_scale."""
PACKAGES = (
    *("torch.optim", "dadaptation", "prodigyopt", "schedulefree", "bitsandbytes.optim"),
    *("transformers.optimization", "lion_pytorch"),
)
"""Where optimizer=custom may take its class from, unless the command line allows more."""
OPTIONAL = (
    *("betas", "eps", "weight_decay", "decouple", "use_bias_correction", "growth_rate", "d0"),
    *("momentum", "d_coef", "safeguard_warmup"),
)


@dataclass
class OptimizerConfig:
    """The optimizer and its own rate; what an optimizer doesn't have is null."""

    name: str
    """Optimizer: dadapt_adam, prodigy, adamw, ..., or custom; chosen by optimizer=<name>."""
    _target_: str | None
    """Class of optimizer=custom, such as torch.optim.NAdam; null with the other names."""
    lr: float
    """Learning rate, a factor on d for the D-Adaptation family and prodigy; >= 0."""
    betas: list[float] | None
    """Decay rates of the running means; two numbers, three for dadapt_adan, each >= 0 and < 1."""
    eps: float | None
    """Added to the denominator; > 0."""
    weight_decay: float | None
    """Weight decay per step, a factor on the learning rate; >= 0."""
    decouple: bool | None
    """Decay weights as AdamW does instead of through the gradient; true or false."""
    use_bias_correction: bool | None
    """Correct Adam's running means for their start at zero; true or false."""
    growth_rate: float | None
    """Most that d may grow by in a step, a factor; > 1; null: unlimited, or no d (adamw)."""
    d0: float | None
    """First estimate of d, which only grows; > 0; null: the optimizer has no d (adamw)."""
    momentum: float | None
    """Share of the last step's direction that is kept (sgd, dadapt_sgd, dadapt_adagrad); >= 0."""
    d_coef: float | None
    """Factor on prodigy's estimate of d; > 0."""
    safeguard_warmup: bool | None
    """Keep the schedule's factor out of prodigy's estimate of d; true or false."""
    args: dict[str, Any]
    """More arguments of the optimizer's class by name: +optimizer.args.nesterov=true."""
    text_encoder_lr: float
    """Learning rate of the text encoder as a factor on lr; >= 0."""


RULES = (
    one_of("name", OPTIMIZERS),
    at_least("lr", 0),
    or_null(
        Rule(
            "betas",
            "two numbers >= 0 and < 1, such as [0.9,0.99] (three for dadapt_adan)",
            lambda value: len(value) in (2, 3) and all(0 <= beta < 1 for beta in value),
        )
    ),
    or_null(above("eps", 0)),
    or_null(at_least("weight_decay", 0)),
    or_null(above("growth_rate", 1)),
    or_null(above("d0", 0)),
    or_null(at_least("momentum", 0)),
    or_null(above("d_coef", 0)),
    at_least("text_encoder_lr", 0),
)


def problems(optimizer: OptimizerConfig) -> list[str]:
    """Returns one line for each pair of settings that don't go together."""
    name = optimizer.name
    if name not in OPTIMIZERS:
        return []
    if name == "custom":
        if optimizer._target_ is None:
            return [
                "optimizer._target_ must name a class with optimizer=custom, such as "
                "torch.optim.NAdam, got null"
            ]
        return []
    found = _foreign(optimizer) + _number_of_betas(optimizer)
    if optimizer._target_ is not None:
        found.append(
            f"optimizer._target_ must be null with optimizer={name}, got "
            f"{shown(optimizer._target_)}; choose optimizer=custom for a class of your own"
        )
    if optimizer.lr == 0 and name in NEEDS_LR_ABOVE_0:
        found.append(f"optimizer.lr must be > 0 with optimizer={name}, got 0.0")
    return found


def _foreign(optimizer: OptimizerConfig) -> list[str]:
    """Settings that this optimizer doesn't have, and those that it needs."""
    takes = TAKES[optimizer.name].split()
    found = []
    for key in OPTIONAL:
        value = getattr(optimizer, key)
        if key not in takes and value is not None:
            found.append(
                f"optimizer.{key} must be null with optimizer={optimizer.name}, which has none, "
                f"got {shown(value)}; it has {', '.join(takes)}"
            )
        if key in takes and value is None and key != "growth_rate":
            found.append(f"optimizer.{key} must be set with optimizer={optimizer.name}, got null")
    return found


def _number_of_betas(optimizer: OptimizerConfig) -> list[str]:
    count = 3 if optimizer.name == "dadapt_adan" else 2
    if optimizer.betas is None or len(optimizer.betas) not in {2, 3} - {count}:
        return []
    return [
        f"optimizer.betas must be {count} numbers with optimizer={optimizer.name}, got "
        f"{shown(optimizer.betas)}"
    ]
