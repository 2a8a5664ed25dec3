"""A training run: all its settings, and the ranges of those that belong to no section."""

import re
from dataclasses import dataclass

from lora_lab.config.callbacks import CallbacksConfig
from lora_lab.config.data import DataConfig
from lora_lab.config.logger import LoggerConfig
from lora_lab.config.metrics import MetricsConfig
from lora_lab.config.model import ModelConfig
from lora_lab.config.network import NetworkConfig
from lora_lab.config.objective import ObjectiveConfig
from lora_lab.config.optimizer import TABLE, OptimizerConfig
from lora_lab.config.rules import Rule, between
from lora_lab.config.sampling import SamplingConfig
from lora_lab.config.schedule import ScheduleConfig
from lora_lab.config.study import StudyConfig
from lora_lab.config.trainer import TrainerConfig

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9 ._-]{0,99}")
_MAX_TRAIN_SEED = 2**31 - 1


@dataclass
class TrainConfig:
    """A training run."""

    model: ModelConfig
    """The base checkpoint that the LoRA is trained on."""
    data: DataConfig
    """Images and captions, in kohya's folder layout."""
    network: NetworkConfig
    """The LoRA."""
    optimizer: OptimizerConfig
    """The optimizer and its own rate."""
    schedule: ScheduleConfig
    """How the learning rate changes over the run."""
    objective: ObjectiveConfig
    """The noise and the loss."""
    trainer: TrainerConfig
    """Hardware and the loop."""
    callbacks: CallbacksConfig
    """What is done beside training."""
    logger: LoggerConfig
    """Where figures are logged; metrics.csv is always written."""
    sampling: SamplingConfig
    """The images that compare the LoRAs of a sweep."""
    metrics: MetricsConfig
    """The images that are drawn to be measured, and what measures them."""
    study: StudyConfig
    """The sweep and its comparison."""
    epochs: int
    """Passes over all images times their repeats; 1 to 1000000."""
    save_every: float
    """Share of the run after which a LoRA is saved; 0.0001 to 1."""
    seed: int
    """Seed of the weights, the noise and the order of the images; 0 to 2^31 - 1."""
    output_name: str
    """File name of the LoRA, without its extension; letters, digits, space, dot, _ and -."""
    resume: bool
    """Go on with the interrupted run in the run folder at its exact step; true or false."""
    overwrite: bool
    """Replace what another run left in the run folder, else it is refused; true or false."""
    data_report: bool
    """Look at the data and train nothing: figures, findings, contact sheet; true or false."""
    debug: bool
    """Show tracebacks of errors; true or false."""


RULES = (
    between("epochs", 1, 1_000_000),
    between("save_every", 0.0001, 1),
    between("seed", 0, _MAX_TRAIN_SEED),
    Rule(
        "output_name",
        "1 to 100 letters, digits, spaces, dots, _ and -, beginning with a letter, digit or _",
        lambda value: _FILE_NAME.fullmatch(value) is not None,
    ),
)


def problems(config: TrainConfig) -> list[str]:
    """Return one line for each pair of settings of different sections that don't go together."""
    optimizer, schedule = config.optimizer, config.schedule
    found = []
    if (config.study.early_end or config.study.pause) and config.save_every > 0.5:
        found.append(
            f"save_every must be <= 0.5 with study.early_end or study.pause, got "
            f"{config.save_every}: a run pauses at the first save after a third of its steps"
        )
    relative_step = "relative_step" in optimizer.args and bool(optimizer.args["relative_step"])
    if relative_step and optimizer.lr != 1.0:
        found.append(
            "optimizer.lr must be 1 with optimizer.args.relative_step=true, which finds its own "
            f"rate, got {optimizer.lr}"
        )
    entry = TABLE.get(optimizer.name)
    if relative_step or (entry and entry.constant_schedule):
        why = "relative_step=true" if relative_step else f"optimizer={optimizer.name}"
        if schedule.name != "constant":
            found.append(
                f"schedule.name must be constant with {why}, which takes the schedule's place, got "
                f"{schedule.name!r}; set schedule=constant"
            )
    if entry and entry.no_warmup and (schedule.warmup_steps or schedule.warmup_share):
        found.append(
            f"schedule.warmup_steps and warmup_share must be 0 with optimizer={optimizer.name}, "
            "which divides by the first step's rate; lower optimizer.growth_rate instead"
        )
    trainer = config.trainer
    if trainer.precision == "16-mixed" and optimizer.args.get("fused"):
        found.append(
            "optimizer.args.fused must be false with trainer.precision=16-mixed, got "
            f"{optimizer.args['fused']!r}: a fused step unscales the gradients too late to clip "
            "them; leave it out, or use bf16-mixed"
        )
    in_bf16 = trainer.precision == "bf16-true" and trainer.lora_precision == "bf16"
    if entry and entry.needs_32_bits and in_bf16:
        found.append(
            f"trainer.lora_precision must be 32 with optimizer={optimizer.name}, got 'bf16': it "
            "measures how far the weights moved, which bf16 rounds away, and d stays at its start"
        )
    return found
