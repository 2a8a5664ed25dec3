"""From a folder of kohya's logs to comparisons, as if they were sweeps of ours."""

import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lora_lab.errors import ConfigError, LabError
from lora_lab.files import sha256_file
from lora_lab.study.kohya_logs.events import EventFile, read_events
from lora_lab.study.kohya_logs.find import LogFolder, find_runs, find_settings
from lora_lab.study.kohya_logs.growth import Growth, measure_growth
from lora_lab.study.kohya_logs.run_settings import RunSettings, read_settings, schedule_of
from lora_lab.study.kohya_logs.series import (
    Series,
    has_loss,
    read_series,
    split_runs,
    with_schedule,
)
from lora_lab.study.kohya_logs.streams import LossCurve, StreamMember, group_streams
from lora_lab.study.read.load import Record, Run

UNFINISHED_RATE = 0.01
"""A falling rate that ends above this share of its highest stopped before its schedule did."""


@dataclass(frozen=True)
class KohyaRun:
    """One run with what its logs say."""

    place: LogFolder
    label: str
    settings: RunSettings
    series: Series
    growth: Growth
    member: StreamMember
    status: str
    notes: tuple[str, ...]

    @property
    def curve(self) -> LossCurve:
        """Its loss by step."""
        return loss_curve(self.series)


@dataclass(frozen=True)
class Logs:
    """All runs of a folder."""

    folder: Path
    runs: tuple[KohyaRun, ...]
    left_out: tuple[str, ...]
    """Event files that are none of kohya's or hold nothing, one sentence each."""


def load_logs(folder: Path) -> Logs:
    """Read every run of a folder.

    Raises:
        ConfigError: No folder, no event files, or none of kohya's trainer.
    """
    places = find_runs(folder)
    settings_of = {
        place: read_settings(path) for place, path in find_settings(folder, places).items()
    }
    found: list[tuple[LogFolder, str, RunSettings, Series]] = []
    left_out: list[str] = []
    cache: dict[str, EventFile] = {}
    for place in places:
        files = [_read(path, cache) for path in place.files]
        left_out += [_why_left_out(folder, file) for file in files if not has_loss(file)]
        settings = settings_of.get(place) or read_settings(None)
        for number, part in enumerate(split_runs([f for f in files if has_loss(f)]), 1):
            label = place.label if number == 1 else f"{place.label} ({number})"
            found.append((place, label, settings, _with_d(read_series(part), settings)))
    if not found:
        raise ConfigError(
            f"{folder} holds no log of kohya's trainer: {left_out[0]}"
            + (f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else "")
        )
    found.sort(key=lambda one: one[-1].started)  # the earliest run gives each stream its name
    members = group_streams([loss_curve(series) for *_, series in found])
    runs = [_run(*one, member) for one, member in zip(found, members, strict=True)]
    return Logs(folder, tuple(runs), tuple(left_out))


def _read(path: Path, cache: dict[str, EventFile]) -> EventFile:
    """Read an event file once: folders of studies hold copies of the base's."""
    try:
        digest = sha256_file(path)
    except LabError:
        return read_events(path)
    if digest not in cache:
        cache[digest] = read_events(path)
    return replace(cache[digest], path=path)


def _why_left_out(folder: Path, file: EventFile) -> str:
    name = file.path.relative_to(folder)
    if file.tags:
        shown = ", ".join(sorted(file.tags)[:3])
        return f"{name} was left out: it has none of kohya's tags (loss/current), but {shown}"
    return f"{name} was left out: it {file.problem or 'holds no figures'}"


def loss_curve(series: Series) -> LossCurve:
    """The finite losses by step."""
    loss = series.metrics.column("loss/step")
    known = np.isfinite(loss)
    return LossCurve(series.metrics.steps[known], loss[known])


def _with_d(series: Series, settings: RunSettings) -> Series:
    """Newer logs hold d · lr alone: d follows with the schedule of the settings."""
    table = series.metrics
    if np.isfinite(table.column("d")).any() or not np.isfinite(table.column("dlr/unet")).any():
        return series
    if not len(table.steps) or np.isfinite(series.schedule).any():
        return series
    total = int(table.steps[-1])
    if settings.epochs and series.epochs and settings.epochs > series.epochs:
        total = round(total * settings.epochs / series.epochs)
    schedule = schedule_of(settings, table.steps, total)
    return series if schedule is None else with_schedule(series, schedule)


def _run(
    place: LogFolder, label: str, settings: RunSettings, series: Series, member: StreamMember
) -> KohyaRun:
    table = series.metrics
    growth = measure_growth(table.steps, table.column("d"))
    status, reason = _status(settings, series)
    notes = [*table.notes, *([reason] if reason else [])]
    if settings.problem:
        notes.append(f"settings: {settings.problem}")
    if math.isnan(growth.last) and table.measured("dlr/unet"):
        notes.append("d can't be told: the log holds no rate beside d · lr, or no d at all")
    return KohyaRun(place, label, settings, series, growth, member, status, tuple(notes))


def _status(settings: RunSettings, series: Series) -> tuple[str, str]:
    """Whether the run trained to its end, by its schedule, else by its settings.

    A rate that has fallen to 0 tells more than the epochs of the settings, which may belong to
    another version of the run.
    """
    rate = (
        series.schedule if np.isfinite(series.schedule).any() else series.metrics.column("dlr/unet")
    )
    rate = rate[np.isfinite(rate)]
    falls = len(rate) > 1 and rate[-1] < rate.max()
    if falls and rate[-1] <= UNFINISHED_RATE * rate.max():
        return "complete", ""
    if settings.epochs and series.epochs and series.epochs < settings.epochs:
        return "unfinished", f"ended in epoch {series.epochs + 1} of {settings.epochs}"
    if falls and not (settings.epochs and series.epochs):
        return "unfinished", "ended before its learning rate had fallen to 0"
    return "complete", ""


def base_labels(logs: Logs) -> dict[tuple[str, ...], str]:
    """The value of the base in each comparison, with the reason to take it for the base.

    In this order: the value that was trained more than once under one name; the run whose very log
    stands in several comparisons; the same value as in a sister comparison; the earliest run.

    Returns:
        Group -> value.
    """
    groups: dict[tuple[str, ...], list[KohyaRun]] = {}
    for run in logs.runs:
        groups.setdefault(run.place.group, []).append(run)
    copies = Counter(run.place.files[0].name for run in logs.runs)
    chosen: dict[tuple[str, ...], str] = {}
    for group, runs in groups.items():
        values = Counter(run.place.value for run in runs)
        repeated = [value for value, count in values.items() if count > 1]
        shared = [run for run in runs if copies[run.place.files[0].name] > 1]
        if repeated:
            chosen[group] = max(repeated, key=lambda value: values[value])
        elif shared:
            best = max(shared, key=lambda run: copies[run.place.files[0].name])
            chosen[group] = best.place.value
    for group, runs in groups.items():
        if group in chosen:
            continue
        sisters = {value for other, value in chosen.items() if other[:-1] == group[:-1]}
        same = [run for run in runs if run.place.value in sisters]
        chosen[group] = (same or sorted(runs, key=lambda run: run.series.started))[0].place.value
    return chosen


def as_run(run: KohyaRun, is_base: bool, reference: KohyaRun) -> Run:
    """A run as the study knows it.

    Args:
        run: The run.
        is_base: Whether it trained the base's value.
        reference: The base run that others are compared with.
    """
    steps = run.series.step_seconds
    seconds = {"training": run.series.seconds}
    if len(steps):
        seconds |= {
            "step_median": float(np.median(steps)),
            "step_p95": float(np.percentile(steps, 95)),
        }
    return Run(
        name=run.label,
        folder=run.place.files[0].parent,
        value=run.place.value,
        is_base=is_base,
        seed=run.settings.seed,
        status=run.status,
        config=run.settings.flat,
        record=Record(
            fingerprints={
                "noise": f"stream {run.member.stream}",
                "inputs": f"set {run.member.inputs}",
                "base model": _checkpoint(run) or _checkpoint(reference),
                "length": f"{_length(run) or _length(reference)} steps",
            },
            seconds=seconds,
        ),
        metrics=run.series.metrics,
        notes=run.notes,
    )


def _checkpoint(run: KohyaRun) -> str:
    """The base checkpoint where the settings name one; published settings hide its path."""
    name = run.settings.flat.get("model.checkpoint", "")
    return "" if name.startswith("<") else name


def _length(run: KohyaRun) -> int:
    """Steps of the whole run; 0 where it ended early, so that they aren't known."""
    whole = run.status == "complete" and len(run.curve.steps) > 0
    return int(run.curve.steps[-1]) if whole else 0


def natural(text: str) -> tuple[tuple[int, float, str], ...]:
    """A key that sorts numbers in texts by their size."""
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", text)
    return tuple((0, float(p), "") if p[0].isdigit() else (1, 0.0, p) for p in parts)
