"""Every figure of one run that the report shows, measured from its files.

Shapes: S logged steps, M held-out measurements.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lora_lab.statistics.curves import last_finite, tail_mean
from lora_lab.study.judge.pair import EPOCH_LOSS, STEP_LOSS, TAIL
from lora_lab.study.read.held_out_file import HELD_OUT, TRAIN_LOSS
from lora_lab.study.read.load import Run
from lora_lab.study.read.metrics_table import MetricsTable

DLR_UNET, DLR_TEXT, D = "dlr/unet", "dlr/text_encoder", "d"
TRAINING_PHASES = ("start_up", "caching", "training", "held_out", "saving")
_STRATUM = re.compile(r"val/loss_t(\d+)")


@dataclass(frozen=True)
class Measures:
    """Figures of one run; NaN where not measured."""

    steps: int = 0
    final_loss: float = math.nan
    """Mean training loss of the last epoch."""
    tail_loss: float = math.nan
    """Mean training loss of the last fifth of the steps."""
    held_out: float = math.nan
    """Loss on held-out images at the end, mean over the timesteps."""
    held_out_by_timestep: Mapping[int, float] = field(default_factory=dict)
    """Timestep -> loss on held-out images at the end."""
    held_out_best: float = math.nan
    """Lowest held-out loss during the training."""
    held_out_best_step: float = math.nan
    """Step at which it was lowest."""
    train_images: float = math.nan
    """The same figure on as many training images at the end."""
    gap: float = math.nan
    """held_out - train_images: what was learned by heart."""
    d_final: float = math.nan
    """The optimizer's d at the last step."""
    peak_dlr_unet: float = math.nan
    peak_dlr_text_encoder: float = math.nan
    peak_dlr_step: float = math.nan
    """Step at which the UNet's rate was highest."""
    seconds: float = math.nan
    """All of a run but the sampling: start-up, caching, training, held-out loss, saving. Of a run
    that was trained in a stack these and all other seconds are its share: run.json has those of
    the whole stack, which pass for each of its runs."""
    seconds_training: float = math.nan
    seconds_held_out: float = math.nan
    seconds_sampling: float = math.nan
    step_median: float = math.nan
    """Seconds a step, median."""
    step_p95: float = math.nan
    """Seconds a step, 95th percentile."""
    stack: int = 1
    """Runs that were trained in one pass with this one, itself included."""
    memory_process: float = math.nan
    """Peak memory of the process in bytes."""
    memory_device: float = math.nan
    """Peak memory of the device in bytes."""
    lora_bytes: float = math.nan
    """Size of the final LoRA file in bytes."""


def strata(table: MetricsTable) -> dict[int, str]:
    """Timestep -> column of the held-out loss at it, ascending."""
    found = {
        int(match[1]): name
        for name in table.columns
        if (match := _STRATUM.fullmatch(name)) and table.measured(name)
    }
    return dict(sorted(found.items()))


def measure(run: Run) -> Measures:
    """Measure a run; of one that didn't train to its end, only what it did reach.

    Of one that ended early nothing is told that others have at their end: it would be compared.
    """
    table, record = run.metrics, run.record
    held_out, dlr = table.column(HELD_OUT), table.column(DLR_UNET)
    final_held_out = last_finite(held_out)
    train_images = last_finite(table.column(TRAIN_LOSS))
    best, peak = _lowest(held_out), _lowest(-dlr)
    seconds = {name: taken / record.stack for name, taken in record.seconds.items()}
    parts = [seconds[phase] for phase in TRAINING_PHASES if phase in seconds]
    found = Measures(
        steps=int(table.steps[-1]) if len(table.steps) else 0,
        final_loss=last_finite(table.column(EPOCH_LOSS)),
        tail_loss=tail_mean(table.column(STEP_LOSS), TAIL),
        held_out=final_held_out,
        held_out_by_timestep={t: last_finite(table.column(n)) for t, n in strata(table).items()},
        held_out_best=float(held_out[best]) if best is not None else math.nan,
        held_out_best_step=float(table.steps[best]) if best is not None else math.nan,
        train_images=train_images,
        gap=final_held_out - train_images,
        d_final=last_finite(table.column(D)),
        peak_dlr_unet=float(dlr[peak]) if peak is not None else math.nan,
        peak_dlr_text_encoder=_largest(table.column(DLR_TEXT)),
        peak_dlr_step=float(table.steps[peak]) if peak is not None else math.nan,
        seconds=math.fsum(parts) if parts else math.nan,
        seconds_training=seconds.get("training", math.nan),
        seconds_held_out=seconds.get("held_out", math.nan),
        seconds_sampling=seconds.get("sampling", math.nan),
        step_median=seconds.get("step_median", math.nan),
        step_p95=seconds.get("step_p95", math.nan),
        stack=record.stack,
        memory_process=record.peak_memory_bytes.get("process", math.nan),
        memory_device=record.peak_memory_bytes.get("device", math.nan),
        lora_bytes=record.lora_bytes,
    )
    if not run.ended_early:
        return found
    return replace(
        found,
        final_loss=math.nan,
        tail_loss=math.nan,
        held_out=math.nan,
        held_out_by_timestep={},
        held_out_best=math.nan,
        held_out_best_step=math.nan,
        train_images=math.nan,
        gap=math.nan,
        d_final=math.nan,
    )


def _lowest(values: NDArray[np.float64]) -> int | None:
    """Index of the lowest finite figure; None when there is none."""
    finite = np.isfinite(values)
    return int(np.argmin(np.where(finite, values, np.inf))) if finite.any() else None


def _largest(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else math.nan
