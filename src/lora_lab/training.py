"""One training run, from a config to a run folder."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from lora_lab.acceleration import accelerated
from lora_lab.callbacks import (
    DLR,
    Cost,
    Estimate,
    HeldOutLoss,
    LoRAExport,
    MetricsCSV,
    NaNGuard,
    Progress,
)
from lora_lab.callbacks.cost import peak_memory, reset_peak_memory
from lora_lab.callbacks.lora_export import CHECKPOINT, FileFacts, save_steps
from lora_lab.clock import Clock
from lora_lab.config import TrainConfig
from lora_lab.data.folders import find_examples
from lora_lab.data.loader import PairedLoader
from lora_lab.inputs import Inputs, SharedInputs, input_fingerprints, load_inputs
from lora_lab.loggers import build_loggers, finish
from lora_lab.module import LoRAModule
from lora_lab.network import inject_lora
from lora_lab.run import COMPLETE, RunFolder, config_key, read_facts, reuse_key
from lora_lab.trainer import build_trainer, fit, set_hardware

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """What a finished run leaves."""

    run_dir: Path
    lora: Path
    """The final LoRA file."""
    steps: int


def train(config: TrainConfig, run_dir: Path, shared: SharedInputs | None = None) -> RunResult:
    """Train one LoRA and leave a run folder.

    Args:
        config: Checked settings.
        run_dir: The run folder. An interrupted run of the same settings, inputs and code in it is
            gone on with if ``config.resume``; the LoRA files of any other run are replaced.
        shared: What earlier runs of the same process have loaded.

    Raises:
        LabError: The run failed; run.json says so, too.
    """
    clock = Clock()
    reset_peak_memory()
    earlier = read_facts(run_dir)
    folder = RunFolder(run_dir)
    folder.begin(config, earlier)
    try:
        return _train(config, folder, shared or SharedInputs(), clock, earlier)
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
    """The order of a run: data, base model, latents, LoRA, module, callbacks, loggers, trainer."""
    set_hardware(config)
    inputs = load_inputs(config, shared, clock)
    fingerprints = inputs.fingerprints()
    key = reuse_key(config, fingerprints)
    checkpoint = _resume_from(config, folder.path, earlier, key)
    folder.write(fingerprints=fingerprints, reuse_key=key)

    base = inputs.base
    loader = PairedLoader(
        items=inputs.items,
        tokenizer=base.tokenizer,
        config=config.data,
        objective=config.objective,
        seed=config.seed,
        timesteps=base.noise_scheduler.config["num_train_timesteps"],
        accumulate=config.trainer.accumulate_grad_batches,
    )
    loggers = build_loggers(config, folder.path, resumed=checkpoint is not None)
    network = inject_lora(base, config.network, config.seed)
    trained = False
    try:
        module = LoRAModule(base, network, config, config.epochs * loader.steps_per_epoch)
        callbacks = build_callbacks(config, folder, inputs, loader, module, clock)
        trainer = build_trainer(config, folder.path, callbacks, loggers)
        with accelerated(base, config.trainer):
            fit(trainer, module, loader, checkpoint)
        trained = True
    finally:
        network.remove()
        finish(loggers, trained)
    return _complete(config, folder, clock, module, trainer)


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
    folder: RunFolder,
    inputs: Inputs,
    loader: PairedLoader,
    module: LoRAModule,
    clock: Clock,
) -> list[pl.Callback]:
    """What happens beside training, in the order in which it happens."""
    saves, run_dir = save_steps(module.total_steps, config.save_every), folder.path
    guard = NaNGuard(config.trainer.max_skipped_steps, folder.write)
    callbacks: list[pl.Callback] = [Cost(clock), Estimate(loader, clock, folder.write), guard]
    callbacks.append(DLR())
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
    callbacks.append(MetricsCSV(run_dir / "metrics.csv"))
    callbacks.append(
        LoRAExport(
            run_dir=run_dir,
            output_name=config.output_name,
            steps=saves,
            facts=FileFacts(config, inputs.base, inputs.items, loader, module.network, time.time()),
            keep_last=config.callbacks.keep_last_checkpoint,
            clock=clock,
        )
    )
    if config.callbacks.progress:
        callbacks.append(Progress(module.total_steps))
    return callbacks


def _resume_from(
    config: TrainConfig, run_dir: Path, earlier: dict[str, Any] | None, key: str
) -> Path | None:
    """The checkpoint to go on from; without one, the LoRA files of an earlier run are removed."""
    checkpoint = run_dir / CHECKPOINT
    if earlier is not None and checkpoint.is_file():
        same = earlier.get("reuse_key") == key and earlier.get("status") != COMPLETE
        if config.resume and same:
            log.info("going on with the interrupted run in %s", run_dir)
            return checkpoint
        log.warning("%s holds another run: it is replaced", run_dir)
    checkpoint.unlink(missing_ok=True)
    for stale in (run_dir / "lora").glob("*.safetensors"):
        stale.unlink()
    return None


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
