"""The optimizer: its settings and their ranges."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lora_lab.config.rules import Rule, above, at_least, between, one_of, or_null, shown


@dataclass(frozen=True)
class Optimizer:
    """All that is particular to one optimizer; settings, training and kohya read it here."""

    path: str
    """Module and class."""
    install: str
    """What to install when it is missing."""
    takes: str
    """The settings below that it has, between blanks; the others must be null."""
    kohya: str
    """kohya's ``optimizer_type``."""
    defaults: Mapping[str, object]
    """What its library takes for each setting that isn't given, as kohya leaves them out."""
    rate: str
    """Where its learning rate comes from, for docs/optimizers.md."""
    when: str
    """When to use it, for docs/optimizers.md."""
    further: Mapping[str, object] = field(default_factory=dict)
    """What sd-scripts takes for arguments that aren't settings here but items of ``args``."""
    flat: bool = True
    """Whether one tensor that holds a whole part takes the same steps as the part's own tensors:
    true for what works elementwise, up to sums over all tensors."""
    betas: int = 2
    """How many numbers ``betas`` are."""
    one_rate: bool = False
    """Whether all parameter groups share one rate, and none has a ``layer_scale``."""
    layer_scale: bool = False
    """Whether a group's own rate is a ``layer_scale``."""
    lr_above_0: bool = False
    """Whether its library refuses a learning rate of 0."""
    constant_schedule: bool = False
    """Whether it takes the schedule's place."""
    no_warmup: bool = False
    """Whether it divides by the first step's rate."""
    needs_32_bits: bool = False
    """Whether its d comes from differences of the weights, which bf16 rounds away."""
    needs_gpu: bool = False

    @property
    def finds_d(self) -> bool:
        """Whether it finds its rate d by itself."""
        return "d0" in self.takes.split()


_ADAM = {"betas": [0.9, 0.999], "eps": 1e-8}
_FINDS_D: dict[str, object] = {"weight_decay": 0, "growth_rate": None, "d0": 1e-6}
_FAMILY = "you want to compare the family"
TABLE: dict[str, Optimizer] = {
    "dadapt_adam": Optimizer(
        *("dadaptation.DAdaptAdam", "dadaptation"),
        "betas eps weight_decay decouple use_bias_correction growth_rate d0",
        "DAdaptAdam",
        {**_FINDS_D, **_ADAM, "decouple": False, "use_bias_correction": False},
        *("finds d", "the guide's, and the base here"),
        layer_scale=True,
        lr_above_0=True,
    ),
    "dadapt_adan": Optimizer(
        *("dadaptation.DAdaptAdan", "dadaptation"),
        "betas eps weight_decay growth_rate d0",
        "DAdaptAdan",
        {**_FINDS_D, "betas": [0.98, 0.92, 0.99], "eps": 1e-8, "weight_decay": 0.02},
        *("finds d", _FAMILY),
        betas=3,
        one_rate=True,
        lr_above_0=True,
    ),
    "dadapt_lion": Optimizer(
        *("dadaptation.DAdaptLion", "dadaptation"),
        "betas weight_decay d0",
        "DAdaptLion",
        {"betas": [0.9, 0.99], "weight_decay": 0, "d0": 1e-6},
        *("finds d", _FAMILY),
        one_rate=True,
    ),
    "dadapt_sgd": Optimizer(
        *("dadaptation.DAdaptSGD", "dadaptation"),
        "momentum weight_decay growth_rate d0",
        "DAdaptSGD",
        {**_FINDS_D, "momentum": 0.0},
        *("finds d", _FAMILY),
        one_rate=True,
        lr_above_0=True,
        no_warmup=True,
    ),
    "dadapt_adagrad": Optimizer(
        *("dadaptation.DAdaptAdaGrad", "dadaptation"),
        "momentum eps weight_decay growth_rate d0",
        "DAdaptAdaGrad",
        {**_FINDS_D, "momentum": 0.0, "eps": 1e-6},
        *("finds d", _FAMILY),
        one_rate=True,
        lr_above_0=True,
    ),
    "prodigy": Optimizer(
        *("prodigyopt.Prodigy", "prodigyopt"),
        "betas eps weight_decay decouple use_bias_correction growth_rate d0 d_coef "
        "safeguard_warmup",
        "Prodigy",
        {
            **_FINDS_D,
            **_ADAM,
            "decouple": True,
            "use_bias_correction": False,
            "d_coef": 1.0,
            "safeguard_warmup": False,
        },
        *("finds d", "as DAdaptAdam, with a d that settles sooner"),
        needs_32_bits=True,
        one_rate=True,
        lr_above_0=True,
    ),
    "schedule_free_adamw": Optimizer(
        *("schedulefree.AdamWScheduleFree", "schedulefree"),
        "betas eps weight_decay",
        "AdamWScheduleFree",
        {**_ADAM, "weight_decay": 0},
        *("yours, `schedule=constant`", "you don't know how long to train"),
        constant_schedule=True,
    ),
    "adamw": Optimizer(
        *("torch.optim.AdamW", "torch"),
        "betas eps weight_decay",
        "AdamW",
        {**_ADAM, "weight_decay": 0.01},
        *("yours", "you know your rate; the fastest"),
    ),
    "adamw_8bit": Optimizer(
        *("bitsandbytes.optim.AdamW8bit", "bitsandbytes"),
        "betas eps weight_decay",
        "AdamW8bit",
        {**_ADAM, "weight_decay": 0.01},
        *("yours", "the optimizer's state doesn't fit"),
        flat=False,  # blocks of 256 values share a scale: a flat tensor has other blocks
        needs_gpu=True,
    ),
    "adafactor": Optimizer(
        *("transformers.optimization.Adafactor", "transformers"),
        "weight_decay",
        "AdaFactor",
        {"weight_decay": 0},
        *("yours, or its own with `optimizer.args.relative_step=true`", "memory is short"),
        further={"scale_parameter": True, "relative_step": True, "warmup_init": False},
        flat=False,  # rows and columns of each matrix are what it keeps
    ),
    "lion": Optimizer(
        *("lion_pytorch.Lion", "lion-pytorch"),
        "betas weight_decay",
        "Lion",
        {"betas": [0.9, 0.99], "weight_decay": 0},
        *("yours, 3 to 10 times below AdamW's", "half of AdamW's state"),
        lr_above_0=True,
    ),
    "sgd": Optimizer(
        *("torch.optim.SGD", "torch"),
        "momentum weight_decay",
        "torch.optim.SGD",
        {"momentum": 0.0, "weight_decay": 0},
        *("yours", "a plain reference"),
    ),
}
"""optimizer.name -> the optimizer. A new one is an entry here and a file in conf/optimizer/."""
OPTIMIZERS = (*TABLE, "custom")
PACKAGES = tuple(dict.fromkeys(entry.path.rpartition(".")[0] for entry in TABLE.values()))
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
    """Learning rate, a factor on d for the D-Adaptation family and prodigy; 0 to 1000000."""
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
    between("lr", 0, 1_000_000),
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
    """Return one line for each pair of settings that don't go together."""
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
    if optimizer.lr == 0 and TABLE[name].lr_above_0:
        found.append(f"optimizer.lr must be > 0 with optimizer={name}, got 0.0")
    return found


def _foreign(optimizer: OptimizerConfig) -> list[str]:
    """Settings that this optimizer doesn't have, and those that it needs."""
    takes = TABLE[optimizer.name].takes.split()
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
    count = TABLE[optimizer.name].betas
    if optimizer.betas is None or len(optimizer.betas) not in {2, 3} - {count}:
        return []
    return [
        f"optimizer.betas must be {count} numbers with optimizer={optimizer.name}, got "
        f"{shown(optimizer.betas)}"
    ]
