"""One training run, from a config to a run folder."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from lora_lab.clock import Clock
from lora_lab.config import TrainConfig
from lora_lab.data.folders import find_examples
from lora_lab.data.loader import PairedLoader
from lora_lab.files import remove_leftovers
from lora_lab.loggers.build import build_loggers, finish
from lora_lab.network import inject_lora
from lora_lab.run_folder.locks import LOCK, hold
from lora_lab.run_folder.record import (
    COMPLETE,
    RunFolder,
    code_version,
    config_key,
    read_facts,
    reuse_key,
)
from lora_lab.run_folder.resume import (
    CHECKPOINT,
    Refused,
    checkpoint_of,
    other_inputs,
    other_settings,
)
from lora_lab.training.acceleration import accelerated
from lora_lab.training.callbacks import (
    DLR,
    Cost,
    Estimate,
    GatherLosses,
    HeldOutLoss,
    JoinSaves,
    LoRAExport,
    MetricsCSV,
    NaNGuard,
    Progress,
    Samples,
    StopOnSignal,
)
from lora_lab.training.callbacks.cost import peak_memory, reset_peak_memory
from lora_lab.training.callbacks.lora_export import FileFacts, save_steps
from lora_lab.training.inputs import Inputs, SharedInputs, input_fingerprints, load_inputs
from lora_lab.training.module import LoRAModule
from lora_lab.training.ranks import Rank, first_rank, other_ranks
from lora_lab.training.trainer import build_trainer, fit, set_hardware

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """What a finished run leaves."""

    run_dir: Path
    lora: Path
    """The final LoRA file."""
    steps: int


def train(
    config: TrainConfig,
    run_dir: Path,
    shared: SharedInputs | None = None,
    overrides: str | None = None,
) -> RunResult:
    """Train one LoRA and leave a run folder.

    Args:
        config: Checked settings.
        run_dir: The run folder. An interrupted run of the same settings, inputs and code in it is
            gone on with if ``config.resume``; any other run is replaced if ``config.overwrite``.
        shared: What earlier runs of the same process have loaded.
        overrides: Text of overrides.yaml, what differs from the base config; None writes none.

    Raises:
        Refused: The folder holds another run, which stays as it is.
        Locked: Another process trains in the folder.
        Stopped: A signal ended the run; it can be resumed.
        LabError: The run failed; run.json says so, too.
    """
    clock = Clock()
    reset_peak_memory()
    with hold(run_dir / LOCK, "wait until it ends, or choose another hydra.run.dir"):
        earlier = read_facts(run_dir)
        difference = other_settings(run_dir, config, earlier)
        if difference is not None:
            checkpoint_of(config, run_dir, earlier, difference)  # refuses what must stay
        folder = RunFolder(run_dir)
        folder.begin(config, earlier, overrides)
        try:
            return _train(config, folder, shared or SharedInputs(), clock, earlier)
        except Refused:
            folder.restore()
            raise
        except BaseException as error:
            folder.fail(error)
            raise


def _train(
    config: TrainConfig,
    folder: RunFolder,
    shared: SharedInputs,
    clock: Clock,
    earlier: dict[str, Any] | None,
) -> RunResult:
    """What the first process of a run does: all that is written is written here."""
    set_hardware(config)
    inputs = load_inputs(config, shared, clock)
    fingerprints = inputs.fingerprints()
    difference = other_inputs(config, earlier, fingerprints, code_version())
    checkpoint = checkpoint_of(config, folder.path, earlier, difference)
    folder.identify(fingerprints, reuse_key(config, fingerprints))
    for part in (folder.path, folder.path / "lora"):
        remove_leftovers(part)

    first = first_rank(config.trainer.devices)
    loggers = build_loggers(config, folder.path, resumed=checkpoint is not None)
    trained = False
    try:
        with other_ranks(first, _train_beside, config, folder.path, checkpoint):
            module, trainer = _fit(
                config, folder.path, inputs, clock, first, checkpoint, loggers, folder.write
            )
        trained = True
    finally:
        finish(loggers, trained)
    return _complete(config, folder, clock, module, trainer)


def _train_beside(
    rank: Rank,
    ready: Callable[[], None],
    config: TrainConfig,
    run_dir: Path,
    checkpoint: Path | None,
) -> None:
    """What every other process of a run does; it writes nothing."""
    set_hardware(config)
    inputs = load_inputs(config, SharedInputs(), Clock())
    ready()
    _fit(config, run_dir, inputs, Clock(), rank, checkpoint, [], _write_nothing)


def _write_nothing(**facts: Any) -> None:
    """In place of run.json in all processes but the first."""


def _fit(
    config: TrainConfig,
    run_dir: Path,
    inputs: Inputs,
    clock: Clock,
    rank: Rank,
    checkpoint: Path | None,
    loggers: list[Any],
    record: Callable[..., None],
) -> tuple[LoRAModule, pl.Trainer]:
    """The order of a training: loader, LoRA, module, callbacks, trainer."""
    base = inputs.base
    loader = PairedLoader(
        items=inputs.items,
        tokenizer=base.tokenizer,
        config=config.data,
        objective=config.objective,
        seed=config.seed,
        timesteps=base.noise_scheduler.config["num_train_timesteps"],
        accumulate=config.trainer.accumulate_grad_batches,
        share=(rank.index, rank.count),
    )
    network = inject_lora(base, config.network, config.seed)
    try:
        module = LoRAModule(base, network, config, config.epochs * loader.steps_per_epoch)
        callbacks = build_callbacks(config, run_dir, inputs, loader, module, clock, rank, record)
        trainer = build_trainer(config, run_dir, callbacks, loggers, rank)
        with accelerated(base, config.trainer):
            fit(trainer, module, loader, checkpoint)
    finally:
        network.remove()
    return module, trainer


def input_difference(run_dir: Path, config: TrainConfig, shared: SharedInputs) -> str | None:
    """How the inputs, code or libraries of a folder's run differ; None when they don't.

    Args:
        run_dir: The run folder, whose run has the same settings.
        config: What would be trained.
        shared: Where the base model is kept, so that it is loaded once.

    Raises:
        LabError: The inputs can't be read.
    """
    base = shared.base(config.model)
    fingerprints = input_fingerprints(find_examples(config.data), base)
    return other_inputs(config, read_facts(run_dir), fingerprints, code_version())


def is_reusable(run_dir: Path, config: TrainConfig, shared: SharedInputs | None = None) -> bool:
    """Whether a folder holds a complete run of the same settings, inputs and code.

    Args:
        run_dir: The run folder; it need not exist.
        config: What would be trained.
        shared: Where the base model is kept, so that it is loaded once.

    Raises:
        LabError: The inputs can't be read.
    """
    facts = read_facts(run_dir)
    if facts is None or facts.get("status") != COMPLETE:
        return False
    if facts.get("config_key") != config_key(config):
        return False
    base = (shared or SharedInputs()).base(config.model)
    fingerprints = input_fingerprints(find_examples(config.data), base)
    final = run_dir / "lora" / f"{config.output_name}.safetensors"
    return final.is_file() and facts.get("reuse_key") == reuse_key(config, fingerprints)


def build_callbacks(
    config: TrainConfig,
    run_dir: Path,
    inputs: Inputs,
    loader: PairedLoader,
    module: LoRAModule,
    clock: Clock,
    rank: Rank,
    record: Callable[..., None],
) -> list[pl.Callback]:
    """What happens beside training, in the order in which it happens; rank 0 alone writes files."""
    saves = save_steps(module.total_steps, config.save_every)
    guard = NaNGuard(config.trainer.max_skipped_steps, record)
    callbacks: list[pl.Callback] = [Cost(clock), guard, DLR()]
    if rank.count > 1:
        callbacks.append(GatherLosses())
    checkpoints = set(saves if config.callbacks.keep_last_checkpoint else saves[:-1])
    stop = StopOnSignal(run_dir, module.total_steps)
    if rank.index > 0:
        return [*callbacks, JoinSaves(run_dir, checkpoints), stop]
    callbacks.insert(1, Estimate(loader, clock, record))
    if config.callbacks.held_out_loss and inputs.held_out:
        callbacks.append(
            HeldOutLoss(
                path=run_dir / "held_out.csv",
                held_out=inputs.held_out,
                training=inputs.training_items,
                tokenizer=loader.tokenizer,
                config=config.data,
                steps=set(saves),
                clock=clock,
            )
        )
    if config.callbacks.samples:
        items = inputs.training_items
        callbacks.append(Samples(run_dir, inputs.base, config, items, set(saves), clock))
    facts = FileFacts(config, inputs.base, inputs.items, loader, module.network, time.time())
    export = LoRAExport(run_dir, config.output_name, saves, checkpoints, facts, clock)
    callbacks += [MetricsCSV(run_dir / "metrics.csv"), export, stop]
    return [*callbacks, *([Progress(module.total_steps)] if config.callbacks.progress else [])]


def _complete(
    config: TrainConfig, folder: RunFolder, clock: Clock, module: LoRAModule, trainer: pl.Trainer
) -> RunResult:
    """Record what the run cost and that it is whole."""
    lora = folder.path / "lora" / f"{config.output_name}.safetensors"
    if not config.callbacks.keep_last_checkpoint:
        (folder.path / CHECKPOINT).unlink(missing_ok=True)
    folder.write(
        status=COMPLETE,
        device=str(trainer.strategy.root_device),
        seconds=clock.report(),
        peak_memory_bytes=peak_memory(),
        lora_bytes=lora.stat().st_size,
        steps=module.total_steps,
        epochs=config.epochs,
    )
    log.info("%d steps in %.0f s; LoRA: %s", module.total_steps, clock.seconds["training"], lora)
    return RunResult(folder.path, lora, module.total_steps)
