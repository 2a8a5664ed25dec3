"""metrics.csv: one row per step, and the same figures for loggers and Lightning's own callbacks."""

import csv
import io
import logging
import math
import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from lora_lab.data.batch import Batch
from lora_lab.data.probes import TIMESTEPS
from lora_lab.errors import LabError, one_line
from lora_lab.files import read_text, write_error, write_text
from lora_lab.training.callbacks.step_callback import StepCallback
from lora_lab.training.module import LoRAModule

log = logging.getLogger(__name__)

COLUMNS = (
    *("step", "epoch", "loss/step", "loss/epoch", "dlr/unet", "dlr/text_encoder", "d"),
    *("val/loss", *(f"val/loss_t{timestep}" for timestep in TIMESTEPS), "seconds"),
)


class MetricsCSV(StepCallback):
    """Writes what the other callbacks recorded in a step. Comes after all that record.

    On a GPU the rows of several steps are written at once, so that it never waits in between.

    The file is closed after each row: what syncs a folder to a bucket uploads closed files only.
    A resumed run drops the rows after the checkpoint.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.epoch_sum = 0.0
        self.epoch_steps = 0

    def state_dict(self) -> dict[str, Any]:
        """The part of the running epoch's mean that is known."""
        return {"epoch_sum": self.epoch_sum, "epoch_steps": self.epoch_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a running epoch's mean."""
        self.epoch_sum = state_dict["epoch_sum"]
        self.epoch_steps = state_dict["epoch_steps"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the file, or keep the rows up to the step that the run is resumed from."""
        keep_rows(self.path, trainer.global_step)

    def on_step_end(self, trainer: pl.Trainer, module: LoRAModule, batch: Batch) -> None:
        """Keep the row of a step that has ended, and write those that are due."""
        loss = torch.cat(module.losses).mean()
        figures = {"loss/step": loss, **module.record}
        on_device = {name: one for name, one in figures.items() if isinstance(one, Tensor)}
        known = {name: one for name, one in figures.items() if not isinstance(one, Tensor)}

        def tell(values: list[float]) -> None:
            read = dict(zip(on_device, values, strict=True))
            self._end_step(trainer, module, batch, {**known, **read})

        numbers = torch.stack([one.to(_widest(on_device)) for one in on_device.values()])
        module.unread.add(numbers, tell)
        if self.is_read(module, batch):
            module.unread.read()

    def _end_step(
        self, trainer: pl.Trainer, module: LoRAModule, batch: Batch, record: dict[str, float]
    ) -> None:
        """Write a row, and tell the loggers."""
        loss = record.pop("loss/step")
        if math.isfinite(loss):  # a step that was left out may have none
            record["loss/step"] = loss
            self.epoch_sum += loss
            self.epoch_steps += 1
        if batch["ends_epoch"] and self.epoch_steps:
            record["loss/epoch"] = self.epoch_sum / self.epoch_steps
            self.epoch_sum, self.epoch_steps = 0.0, 0
        self._write({"step": batch["step"], "epoch": batch["epoch"], **record})
        module.latest = record
        # For Lightning's callbacks, which ask for a name.
        module.log_dict({name: torch.tensor(one) for name, one in record.items()}, logger=False)
        for logger in trainer.loggers:
            logger.log_metrics({**record, "epoch": batch["epoch"]}, step=batch["step"])

    def _write(self, row: dict[str, float]) -> None:
        line = io.StringIO()
        csv.DictWriter(line, COLUMNS, lineterminator="\n").writerow(row)
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(line.getvalue())
        except OSError as error:
            raise write_error(self.path, error) from error


def _widest(numbers: dict[str, Tensor]) -> torch.dtype:
    """A number format that holds all of them."""
    wide = torch.float32
    for one in numbers.values():
        wide = torch.promote_types(wide, one.dtype)
    return wide


def keep_rows(path: Path, last_step: int) -> None:
    """Write the header and the whole rows up to a step; 0 keeps none.

    Raises:
        LabError: The file is damaged or can't be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    if last_step > 0 and path.is_file():
        for row in _rows(path):
            step = row["step"] or ""
            if re.fullmatch(r"[0-9]{1,18}", step) and int(step) <= last_step:
                writer.writerow({name: row.get(name) or "" for name in COLUMNS})
    write_text(path, text.getvalue())


def _rows(path: Path) -> list[dict[str, str | None]]:
    try:
        whole = read_text(path).rpartition("\n")[0]  # a kill can cut a row off
        reader = csv.DictReader(whole.splitlines())
        if "step" not in (reader.fieldnames or ()):
            raise ValueError("it has no column step")
        return list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise LabError(
            f"{path} is damaged ({one_line(error, 100)}), so its run can't be resumed: start it "
            "again with overwrite=true, or choose another folder"
        ) from error
