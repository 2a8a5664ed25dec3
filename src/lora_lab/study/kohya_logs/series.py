"""From the event files of one run to its curves, in the columns of our own metrics.csv.

kohya's tags changed: 2023 has `lr/d*lr`, `lr/unet`, `lr/textencoder`, `loss/epoch`; 2026 has
`lr/d*lr/unet`, `lr/d*lr/textencoder`, `lr/d*lr/group0`, `loss/epoch_average`. A rate is logged
after the step, so it is that of the next one; it stays where it was logged. Shapes: S steps,
E epochs.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lora_lab.study.kohya_logs.events import EventFile, Scalars
from lora_lab.study.read.metrics_table import MetricsTable

LOSS = ("loss/current",)
EPOCH_LOSS = ("loss/epoch", "loss/epoch_average")
DLR_UNET = ("lr/d*lr/unet", "lr/d*lr", "lr/d*lr/group0", "lr/d*lr-unet")
DLR_TEXT = ("lr/d*lr/textencoder", "lr/d*lr-textencoder")
LR = ("lr/unet", "lr/group0", "lr/textencoder")


@dataclass(frozen=True)
class Series:
    """The curves of one run."""

    metrics: MetricsTable
    schedule: NDArray[np.float64]
    """Learning rate without d, (S,); NaN where it wasn't logged."""
    epochs: int
    """Epochs that were logged."""
    started: float
    """Unix time in seconds."""
    seconds: float
    step_seconds: NDArray[np.float64]
    """Time from one step to the next, (S-1,)."""


def split_runs(files: list[EventFile]) -> list[list[EventFile]]:
    """Sort the event files of one folder into runs.

    A file that begins where another one stopped, or that begins anew and goes further, continues
    the run; one that begins at step 1 and goes no further is a run of its own.

    Args:
        files: Readable event files with kohya's loss in them.
    """
    runs: list[list[EventFile]] = []
    for file in sorted(files, key=lambda item: (item.started, item.path.name)):
        steps = _first(file, LOSS).steps
        anew = bool(runs) and steps.min() <= 1 and _last_step(runs[-1]) >= steps.max()
        if not runs or anew:
            runs.append([file])
        else:
            runs[-1].append(file)
    return runs


def has_loss(file: EventFile) -> bool:
    """Whether a file has what kohya's trainer logs at every step."""
    return any(tag in file.tags for tag in LOSS)


def read_series(files: list[EventFile]) -> Series:
    """Join the event files of one run.

    Args:
        files: At least one, in the order of their time.
    """
    notes = [f"{file.path.name} {file.problem}" for file in files if file.problem]
    loss, restarts = _joined(files, LOSS)
    notes += restarts
    steps = loss.steps
    epoch_loss, _ = _joined(files, EPOCH_LOSS)
    ends = _epoch_ends(loss, epoch_loss)
    dlr, schedule = _on(steps, files, DLR_UNET), _on(steps, files, LR)
    if not np.isfinite(dlr).any():  # an optimizer without d: its rate is the rate at work
        dlr = schedule
    with np.errstate(divide="ignore", invalid="ignore"):
        d = np.where(schedule > 0, dlr / schedule, np.nan)
    bad = ~np.isfinite(loss.values)
    if bad.any():
        notes.append(
            f"its loss is not a number in {bad.sum()} steps, first in step {steps[bad][0]}"
        )
    columns = {
        "loss/step": np.where(bad, np.nan, loss.values),
        "epoch": 1.0 + np.searchsorted(ends, steps, side="left"),
        "loss/epoch": _at(steps, ends, epoch_loss.values),
        "dlr/unet": dlr,
        "dlr/text_encoder": _on(steps, files, DLR_TEXT),
        "d": d if _has(files, DLR_UNET) else np.full(len(steps), np.nan),
    }
    return Series(
        MetricsTable(steps, columns, tuple(notes)),
        schedule,
        len(ends),
        files[0].started,
        float(loss.times[-1] - loss.times[0]) if len(steps) > 1 else math.nan,
        np.diff(loss.times),
    )


def with_schedule(series: Series, schedule: NDArray[np.float64]) -> Series:
    """Add d to a run of which only d · lr was logged.

    Args:
        series: The run.
        schedule: Its learning rate without d, from its settings, (S,).
    """
    table = series.metrics
    dlr = table.column("dlr/unet")
    with np.errstate(divide="ignore", invalid="ignore"):
        d = np.where(schedule > 1e-6 * schedule.max(), dlr / schedule, np.nan)
    metrics = replace(table, columns={**table.columns, "d": d})
    return replace(series, metrics=metrics, schedule=schedule)


def _has(files: list[EventFile], tags: tuple[str, ...]) -> bool:
    return any(tag in file.tags for file in files for tag in tags)


def _first(file: EventFile, tags: tuple[str, ...]) -> Scalars:
    """The first of several tags that a file has; nothing when it has none."""
    for tag in tags:
        if tag in file.tags:
            return file.tags[tag]
    return Scalars(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))


def _last_step(files: list[EventFile]) -> int:
    return max(int(_first(file, LOSS).steps.max()) for file in files)


def _joined(files: list[EventFile], tags: tuple[str, ...]) -> tuple[Scalars, list[str]]:
    """One tag over all files: a later one counts from its first step on. Each step once."""
    found: dict[int, tuple[float, float]] = {}
    notes = []
    for file in files:
        part = _first(file, tags)
        if len(part.steps) and found and part.steps.min() <= max(found):
            begin = int(part.steps.min())
            notes.append(
                f"{file.path.name} starts again at step {begin}: what was logged from there on "
                "before was left out"
            )
            found = {step: entry for step, entry in found.items() if step < begin}
        entries = zip(part.values.tolist(), part.times.tolist(), strict=True)
        found.update(zip(part.steps.tolist(), entries, strict=True))
    steps = np.array(sorted(found), np.int64)
    rows = np.array([found[step] for step in steps.tolist()]).reshape(-1, 2)
    return Scalars(steps, rows[:, 0], rows[:, 1]), notes


def _on(
    steps: NDArray[np.int64], files: list[EventFile], tags: tuple[str, ...]
) -> NDArray[np.float64]:
    """A tag's values at the steps of the loss, NaN where it has none, (S,)."""
    part, _ = _joined(files, tags)
    return _at(steps, part.steps, part.values)


def _at(
    steps: NDArray[np.int64], places: NDArray[np.int64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    row = np.full(len(steps), np.nan)
    _, mine, theirs = np.intersect1d(steps, places, return_indices=True)
    row[mine] = values[theirs]
    return row


def _epoch_ends(loss: Scalars, epochs: Scalars) -> NDArray[np.int64]:
    """The last step of each epoch, (E,): its mean loss is logged under the number of the epoch."""
    if not len(epochs.steps) or not len(loss.steps):
        return np.zeros(0, np.int64)
    last, count = int(loss.steps[-1]), int(epochs.steps[-1])
    if count == last and len(epochs.steps) < last:  # logged under the step
        return epochs.steps
    if count > 0 and last % count == 0:
        return epochs.steps * (last // count)
    index = np.searchsorted(loss.times, epochs.times, side="right") - 1
    return np.maximum.accumulate(loss.steps[np.clip(index, 0, None)])
