"""The loss at fixed timesteps and noise, on held-out images and on as many training images.

Which images at which timesteps, `data/probes.py` says. Nothing of training is touched: no random
number of it is drawn, no gradient is kept.
"""

import csv
import hashlib
import io
from contextlib import nullcontext
from pathlib import Path

import lightning.pytorch as pl
import torch

from lora_lab.clock import Clock
from lora_lab.data.batch import Batch
from lora_lab.data.inputs import ImageLoss
from lora_lab.data.probes import HELD_OUT, TIMESTEPS, HeldOutProbes, Probe, Unit
from lora_lab.files import read_text, write_error, write_text
from lora_lab.optimizers import averaged_weights
from lora_lab.training.callbacks.step_callback import StepCallback
from lora_lab.training.module import LoRAModule

COLUMNS = ("step", "set", "image", "timestep", "loss")


class HeldOutLoss(StepCallback):
    """Validates at every save; records the means and writes each image's loss to a file.

    The means are over what every save measures, so that those of one run are of one quantity.

    Args:
        path: held_out.csv: one row for each step, set, image and timestep.
        probes: What is measured, and when.
        steps: When to measure.
        judged: At which of them verdicts are asked for, so that everything is measured.
        clock: Counts the seconds.
        bare: What earlier runs of the process measured of the bare base, by `bare_key`.
    """

    def __init__(
        self,
        path: Path,
        probes: HeldOutProbes,
        steps: set[int],
        judged: set[int],
        clock: Clock,
        bare: dict[str, list[ImageLoss]],
    ) -> None:
        self.path = path
        self.probes = probes
        self.steps = steps
        self.judged = judged
        at_all = probes.between if len(steps) > 1 else probes.last
        self.units = {unit for probe in at_all if probe.part == HELD_OUT for unit in probe.units}
        self.clock = clock
        self.bare = bare

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the file with the losses before the first step, or keep the rows up to a resume.

        A fresh LoRA changes nothing, so step 0 is the bare base: what was gained since then tells
        how far training images are known by heart.
        """
        lines = [",".join(COLUMNS)]
        if trainer.global_step > 0 and self.path.is_file():
            whole = read_text(self.path, errors="replace").rpartition("\n")[0]
            for line in whole.splitlines()[1:]:
                step = line.split(",", 1)[0]
                if step.isdecimal() and len(step) < 19 and int(step) <= trainer.global_step:
                    lines.append(line)
        write_text(self.path, "\n".join(lines) + "\n")
        if trainer.global_step == 0 and isinstance(pl_module, LoRAModule):
            self._append(0, self._measure_bare(trainer, pl_module))

    def on_step_end(self, trainer: pl.Trainer, module: LoRAModule, batch: Batch) -> None:
        """Measure when the step is one of those that save."""
        if batch["step"] not in self.steps:
            return
        module.unread.read()  # a step that isn't finite ends the run here
        probes = self.probes.last if batch["step"] in self.judged else self.probes.between
        rows = self._measure(trainer, module, probes)
        module.record.update(means(rows, self.units))
        self._append(batch["step"], rows)

    def _measure_bare(self, trainer: pl.Trainer, module: LoRAModule) -> list[ImageLoss]:
        """The losses before the first step, once for all runs of the process that share them."""
        if module.config.network.weights is not None:
            return self._measure(trainer, module, self.probes.bare)  # not the bare base
        key = bare_key(module, self.probes.bare)
        stacked = module.stacked
        with nullcontext() if stacked is None else stacked.one_at_a_time(f"bare losses {key}"):
            if key not in self.bare:
                self.bare[key] = self._measure(trainer, module, self.probes.bare)
        return self.bare[key]

    def _measure(
        self, trainer: pl.Trainer, module: LoRAModule, probes: list[Probe]
    ) -> list[ImageLoss]:
        with self.clock.phase("held_out"):
            weights = averaged_weights(module.optimizer)
            with torch.no_grad(), weights, trainer.precision_plugin.forward_context():
                return [row for probe in probes for row in losses_of(module, probe)]

    def _append(self, step: int, rows: list[ImageLoss]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([(step, *row) for row in rows])
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(text.getvalue())
        except OSError as error:
            raise write_error(self.path, error) from error


def bare_key(module: LoRAModule, probes: list[Probe]) -> str:
    """What the losses of the bare base depend on: model, noise schedule, arithmetic and probes."""
    config = module.config
    told = (config.model, config.trainer, config.data.restore_mean)
    digest = hashlib.sha256(repr(told).encode())
    digest.update(module.alphas_cumprod.cpu().numpy().tobytes())
    for probe in probes:
        digest.update(repr((probe.part, probe.units)).encode())
        for tensor in (probe.latents, probe.input_ids, probe.token_weights):
            if tensor is not None:
                digest.update(tensor.double().numpy().tobytes())
    return digest.hexdigest()


def losses_of(module: LoRAModule, probe: Probe) -> list[ImageLoss]:
    """The loss of each image of a probe at each of its timesteps."""
    losses = module.validation_step(probe, 0).tolist()
    return [(probe.part, *unit, loss) for unit, loss in zip(probe.units, losses, strict=True)]


def means(rows: list[ImageLoss], units: set[Unit]) -> dict[str, float]:
    """The figures of the held-out images: at each timestep, and over all of them.

    Args:
        rows: What was measured.
        units: Of which images at which timesteps the means are.
    """
    by_timestep: dict[int, list[float]] = {timestep: [] for timestep in TIMESTEPS}
    for part, image, timestep, loss in rows:
        if part == HELD_OUT and (image, timestep) in units:
            by_timestep[timestep].append(loss)
    figures = {f"val/loss_t{t}": sum(losses) / len(losses) for t, losses in by_timestep.items()}
    return {"val/loss": sum(figures.values()) / len(figures), **figures}
