"""A sweep of four values as users run it: one run after the other, two at a time, stacked.

Whole commands are timed in turn, from their start to their end, each in an empty folder. What they
record of themselves says how fast they train and where the time goes. Batches of three are drawn,
scored and reported as in `make demo`; with batches of one, of which only the training differs,
nothing is drawn.
"""

import csv
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process_memory import CommandCost, run_watched
from benchmarks.settings import ROOT, images_per_epoch, steps_per_epoch, train_settings
from benchmarks.table import render_columns
from lora_lab.files import read_json
from lora_lab.run_folder.record import read_facts

VALUES = "network.dim=2,8,16,32"
STEPS = 120
OF_ALL = ("study.seeds=1", "study.reuse_from=null", "save_every=0.2", "callbacks.progress=false")
TRAINING_ALONE = ("sampling.grids=[]", "metrics.enabled=false")
BATCHES: dict[int, tuple[str, ...]] = {3: (), 1: TRAINING_ALONE}
"""Batch size -> settings of its own."""
SEQUENTIAL, TWO, STACKED = "one after the other", "two processes", "stacked"
SHARED_BY_A_STACK = {
    "start-up in train.py": ("start_up", "caching"),
    "training steps": ("training",),
    "held-out loss": ("held_out",),
    "saves": ("saving",),
}
"""Part -> phases of run.json, which a run that is trained with others tells of all of them."""
OF_IMAGES = {"drawing": "sampling", "scoring": "scoring"}
REPORT, REST = "grids and report", "imports, loading to draw, waiting"


@dataclass(frozen=True)
class Way:
    """How the runs of a sweep are trained and drawn."""

    overrides: tuple[str, ...]
    processes: int
    """That work beside each other."""


def ways(cores: int, gpu: bool) -> dict[str, Way]:
    """Name -> how; with all cores each.

    Args:
        cores: Of the machine.
        gpu: Whether there is one, which one stack fills.
    """
    each = f"trainer.threads={max(1, cores // 2)}"
    stacks = 1 if gpu else 2
    within = f"hydra.launcher.within.n_jobs={stacks}"
    return {
        SEQUENTIAL: Way((f"trainer.threads={cores}",), 1),
        TWO: Way(("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", each), 2),
        STACKED: Way(("hydra/launcher=stacked", within, each), stacks),
    }


@dataclass(frozen=True)
class SweepCost:
    """What a sweep took."""

    seconds: float
    """Of the whole command."""
    trained: float
    """Until the last LoRA was there."""
    scored: float
    """Until the last image and score were there."""
    images: int
    """That the runs trained on, counted as often as they were seen."""
    images_per_second: float
    """In training steps alone, of all processes together; the first step of a run left out."""
    peak_bytes: int
    parts: dict[str, float]
    """Part -> its share of the time of all processes."""


Taken = Callable[[SweepCost], float]


def measure(overrides: list[str], steps: int, rounds: int) -> list[str]:
    """Runs each sweep in turn; a table for each batch size.

    Args:
        overrides: As for train.py.
        steps: About how many each run takes; whole epochs are run.
        rounds: How often each sweep is run.
    """
    import torch

    chosen = ways(os.cpu_count() or 1, torch.cuda.is_available())
    found: dict[int, dict[str, list[SweepCost]]] = {
        batch: {name: [] for name in chosen} for batch in BATCHES
    }
    lengths: dict[int, int] = {}
    for _ in range(rounds):
        for batch, own in BATCHES.items():
            given = [*OF_ALL, *own, f"data.batch_size={batch}", *overrides]
            config = train_settings(given)
            epochs = max(1, round(steps / steps_per_epoch(config)))
            lengths[batch] = epochs * steps_per_epoch(config)
            for name, way in chosen.items():
                found[batch][name].append(
                    run_sweep([*given, f"epochs={epochs}", *way.overrides], way.processes)
                )
    return [
        render_sweeps(f"sweep {VALUES}, batch {batch}, {lengths[batch]} steps a run", costs)
        for batch, costs in found.items()
    ]


def run_sweep(overrides: list[str], processes: int) -> SweepCost:
    """Run a sweep in an empty folder.

    Args:
        overrides: As for train.py.
        processes: That work beside each other.

    Raises:
        RuntimeError: It failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "sweep"
        command = [sys.executable, "train.py", "-m", VALUES, *overrides]
        took = run_watched([*command, f"hydra.sweep.dir={folder}"], ROOT)
        config = train_settings([one for one in overrides if not one.startswith("hydra")])
        return read_cost(folder, took, processes, config.epochs * images_per_epoch(config))


def read_cost(folder: Path, took: CommandCost, processes: int, images: int) -> SweepCost:
    """What a finished sweep says of itself.

    Args:
        folder: The sweep folder.
        took: What its command took.
        processes: That worked beside each other.
        images: That a run trains on, counted as often as it sees them.
    """
    runs = [folder / run["folder"] for run in read_json(folder / "sweep.json")["runs"]]
    parts = dict.fromkeys([*SHARED_BY_A_STACK, *OF_IMAGES], 0.0)
    after_first = 0.0
    for run in runs:
        facts = read_facts(run) or {}
        stack = (facts.get("stack") or {}).get("runs", 1)
        seconds = facts["seconds"]
        for part, phases in SHARED_BY_A_STACK.items():
            parts[part] += sum(seconds[phase] for phase in phases) / stack
        for part, phase in OF_IMAGES.items():
            parts[part] += seconds.get(phase, 0.0)
        after_first += _without_first_step(run / "metrics.csv") / stack
    trained = _newest(folder, "lora/*.safetensors")
    scored = max(trained, _newest(folder, "images/**/*.png"), _newest(folder, "image_scores.json"))
    parts[REPORT] = _newest(folder, "report/index.html") - scored
    of_all = processes * took.seconds
    parts[REST] = of_all - sum(parts.values())
    return SweepCost(
        seconds=took.seconds,
        trained=trained - took.began,
        scored=scored - took.began,
        images=images * len(runs),
        images_per_second=processes * images * len(runs) / after_first,
        peak_bytes=took.peak_bytes,
        parts={part: taken / of_all for part, taken in parts.items()},
    )


def _without_first_step(metrics: Path) -> float:
    """Seconds of a run's training steps, the first of which counts as long as the others."""
    with metrics.open(encoding="utf-8", newline="") as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    if len(seconds) < 2:
        return seconds[-1]
    return (seconds[-1] - seconds[0]) * len(seconds) / (len(seconds) - 1)


def _newest(folder: Path, pattern: str) -> float:
    """When the newest of some files was written, as Unix time; 0 where there is none."""
    return max((path.stat().st_mtime for path in folder.rglob(pattern)), default=0.0)


def render_sweeps(title: str, costs: dict[str, list[SweepCost]]) -> str:
    """A table of sweeps.

    Args:
        title: What was swept.
        costs: Name of a way -> what its sweeps took, one a round.
    """
    drawn = any(one.scored > one.trained for found in costs.values() for one in found)

    def of(take: Taken) -> list[list[float]]:
        return [[take(one) for one in found] for found in costs.values()]

    def ratios(take: Taken) -> list[list[float]]:
        """To two processes, round by round."""
        return [
            [take(one) / take(other) for one, other in zip(found, costs[TWO], strict=True)]
            for found in costs.values()
        ]

    def share(part: str) -> list[list[float]]:
        return of(lambda one: 100 * one.parts[part])

    against = f"... against {TWO}"
    rows = [
        ("images/s in training steps", of(lambda one: one.images_per_second)),
        (against, ratios(lambda one: one.images_per_second)),
        ("images/s of the whole command", of(lambda one: one.images / one.seconds)),
        (against, ratios(lambda one: one.images / one.seconds)),
        ("seconds of the whole command", of(lambda one: one.seconds)),
        ("... until the last LoRA", of(lambda one: one.trained)),
    ]
    if drawn:
        rows.append(("... until the last image and score", of(lambda one: one.scored)))
    rows.append(("peak memory of all processes, GB", of(lambda one: one.peak_bytes / 1e9)))
    rows += [(f"{part}, % of the processes' time", share(part)) for part in costs[TWO][0].parts]
    return render_columns(title, list(costs), rows)
