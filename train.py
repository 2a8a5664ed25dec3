"""Trains a LoRA, or sweeps one setting and compares the values.

python train.py [key=value ...]
python train.py -m network.dim=2,8,32
python train.py --help
"""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from lora_lab.cli import task
from lora_lab.cli.entry import run_command

if TYPE_CHECKING:
    from lora_lab.config import TrainConfig
    from lora_lab.data.inputs import SharedInputs
    from lora_lab.run_folder.folder import RunFolder
    from lora_lab.training.stacked_run import StackedRun

log = logging.getLogger(__name__)


@task.task_wrapper
def main(cfg: DictConfig) -> str | None:
    """One training run as a command or as a job of a sweep, from the config that Hydra composed."""
    from lora_lab.cli.preflight import checked_train_config

    settings = checked_train_config(cfg)
    if settings.data_report:
        from lora_lab.cli.data_report_command import data_report_command

        return data_report_command(settings, task.output_folder())
    folder, shared = task.output_folder(), task.shared_inputs()
    train(settings, folder, shared, task.overrides_text(), task.stacked_run())
    return None


def train(
    settings: "TrainConfig",
    path: Path,
    shared: "SharedInputs | None" = None,
    overrides: str | None = None,
    stacked: "StackedRun | None" = None,
) -> "RunFolder":
    """Train one LoRA, unless its folder holds it already; PyTorch is imported here, not before.

    Args:
        settings: Checked settings.
        path: The run folder.
        shared: What earlier runs of the process have loaded.
        overrides: What the command line says, for overrides.yaml; None writes none.
        stacked: The run's hold on those that are trained at the same time; None trains it alone.

    Raises:
        Refused: The folder holds another run, which stays as it is.
        Stopped: A signal ended the run; the same command goes on.
        LabError: The run failed; run.json says so, too.
    """
    from lora_lab.clock import Clock
    from lora_lab.data.data_module import LoRADataModule
    from lora_lab.data.inputs import Inputs, SharedInputs
    from lora_lab.loggers.build import running_loggers
    from lora_lab.network import inject_lora
    from lora_lab.run_folder.folder import RunFolder
    from lora_lab.training.beside import train_beside
    from lora_lab.training.callbacks.build import build_callbacks
    from lora_lab.training.callbacks.cost import costs, reset_peak_memory
    from lora_lab.training.module import LoRAModule
    from lora_lab.training.trainer import build_trainer, set_hardware

    clock, shared = Clock(), shared or SharedInputs()
    folder = RunFolder.open(path, settings, shared.fingerprints)  # new, to go on, whole, or refused
    if folder.is_complete:
        log.info("%s holds this run already: same settings, inputs and code", path)
        return folder
    with folder.locked():
        reset_peak_memory()
        set_hardware(settings.trainer)
        inputs = Inputs.load(settings, shared, clock)  # base model, examples and their latents
        data = LoRADataModule(inputs, settings)
        together = stacked is not None
        with inject_lora(inputs.base, settings.network, settings.seed, together) as network:
            module = LoRAModule(inputs.base, network, settings, data.total_steps, stacked)
            folder.begin(inputs.fingerprints(), overrides)  # from here on, files are written
            with running_loggers(settings, path, resumed=folder.checkpoint is not None) as loggers:
                callbacks = build_callbacks(settings, folder, inputs, data, module, clock)
                trainer = build_trainer(settings, path, callbacks, loggers, train_beside)
                trainer.fit(module, datamodule=data, ckpt_path=folder.checkpoint)
        if not folder.is_paused:
            folder.complete(**costs(clock, trainer), **(stacked.facts() if stacked else {}))
    return folder


if __name__ == "__main__":
    sys.exit(run_command(main, "train", Path(__file__).parent / "conf", sys.argv[1:]))
