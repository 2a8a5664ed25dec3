"""What happens beside training, in the order in which it happens."""

import time

import lightning.pytorch as pl

from lora_lab.clock import Clock
from lora_lab.config import TrainConfig
from lora_lab.data.data_module import LoRADataModule
from lora_lab.data.inputs import Inputs
from lora_lab.run_folder.folder import RunFolder
from lora_lab.training.acceleration import Acceleration
from lora_lab.training.callbacks.cost import Cost
from lora_lab.training.callbacks.dlr import DLR
from lora_lab.training.callbacks.estimate import Estimate
from lora_lab.training.callbacks.held_out_loss import HeldOutLoss
from lora_lab.training.callbacks.lora_export import (
    FileFacts,
    LoRAExport,
    checkpoint_steps,
    save_steps,
)
from lora_lab.training.callbacks.metrics_csv import MetricsCSV
from lora_lab.training.callbacks.nan_guard import NaNGuard
from lora_lab.training.callbacks.pause import Pause, pause_step
from lora_lab.training.callbacks.progress import Progress
from lora_lab.training.callbacks.samples import Samples
from lora_lab.training.callbacks.several_devices import GatherLosses
from lora_lab.training.callbacks.stop import StopOnSignal
from lora_lab.training.module import LoRAModule


def build_callbacks(
    config: TrainConfig,
    folder: RunFolder,
    inputs: Inputs,
    data: LoRADataModule,
    module: LoRAModule,
    clock: Clock,
) -> list[pl.Callback]:
    """The callbacks of a run: what measures a step, what uses the figures, what saves, what stops.

    Args:
        config: The run's settings.
        folder: Where the files go.
        inputs: What the run reads.
        data: Its batches and probes.
        module: What is trained.
        clock: Counts the seconds.
    """
    saves = save_steps(module.total_steps, config.save_every)
    checkpoints = set(checkpoint_steps(config, module.total_steps))
    facts = FileFacts(config, inputs.base, inputs.items, data.loader, module.network, time.time())
    callbacks: list[pl.Callback] = [
        *([Acceleration(inputs.base, config.trainer)] if module.stacked is None else []),
        Cost(clock),
        Estimate(data.loader, clock, folder.write),
        NaNGuard(config.trainer.max_skipped_steps, folder.write),
        DLR(),
    ]
    if config.trainer.devices > 1:
        callbacks.append(GatherLosses())
    if data.probes.last:
        path = folder.path / "held_out.csv"
        judged = {saves[-1], *([pause_step(saves)] if config.study.pause else [])}
        callbacks.append(
            HeldOutLoss(path, data.probes, set(saves), judged, clock, inputs.bare_losses)
        )
    if config.callbacks.samples:
        items = inputs.training_items
        callbacks.append(Samples(folder.path, inputs.base, config, items, set(saves), clock))
    callbacks += [
        MetricsCSV(folder.path / "metrics.csv"),
        LoRAExport(folder.path, config.output_name, saves, checkpoints, facts, clock),
        StopOnSignal(folder.path, module.total_steps),
    ]
    if config.study.pause and pause_step(saves) < module.total_steps:
        callbacks.append(Pause(pause_step(saves), module.total_steps, folder.pause))
    if config.callbacks.progress and (module.stacked is None or module.stacked.number == 0):
        runs = 1 if module.stacked is None else len(module.stacked.stack.runs)
        callbacks.append(Progress(module.total_steps, runs))  # of a stack the first: one for all
    return callbacks
