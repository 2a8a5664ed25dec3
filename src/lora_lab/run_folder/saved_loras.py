"""Which LoRA files a run or sweep folder holds, and how the rows of a grid are labelled."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lora_lab.errors import LabError
from lora_lab.files import read_json, read_yaml, require_regular
from lora_lab.run_folder.listed_runs import listed_run
from lora_lab.run_folder.record import COMPLETE, ENDED_EARLY, read_facts

_STEP_NAME = re.compile(r"-step(\d{8})\.safetensors")


@dataclass(frozen=True)
class SavedLoRA:
    """One LoRA file of a run."""

    path: Path
    step: int
    share: float
    """Of the run, in (0, 1]; 0 where it can't be told."""


@dataclass(frozen=True)
class RunLoRAs:
    """A run as a row of a grid."""

    folder: Path
    label: str
    note: str
    is_base: bool
    saves: tuple[SavedLoRA, ...]
    """In the order of their steps; the last is the final one if the run is complete."""
    problem: str
    """Why saves are missing; empty for a complete run."""
    seed: int | None = None
    """The seed that it was trained under, where a sweep tells it."""


@dataclass(frozen=True)
class Rows:
    """The rows of a grid."""

    parameter: str
    """What the rows differ in; empty for a single run."""
    runs: tuple[RunLoRAs, ...]
    title: str = ""
    """What a grid is called; empty: by the parameter or the folder."""


def find_rows(folder: Path) -> Rows:
    """Read a run or sweep folder.

    Raises:
        LabError: It is neither, or its sweep.json is damaged.
    """
    if (folder / "sweep.json").is_file():
        return _sweep_rows(folder)
    if (folder / "run.json").is_file() or (folder / "lora").is_dir():
        return Rows("", (_read_run(folder, folder.resolve().name, "", False),))
    raise LabError(
        f"{folder} is neither a run folder (run.json) nor a sweep folder (sweep.json): "
        "name a folder that train.py made"
    )


def first_seeds(rows: Rows, count: int | None) -> Rows:
    """The rows of the first training seeds of a sweep.

    Args:
        rows: The rows of a run or sweep folder.
        count: How many seeds; None: all.
    """
    if count is None:
        return rows
    seeds = list(dict.fromkeys(run.seed for run in rows.runs if run.seed is not None))[:count]
    kept = tuple(run for run in rows.runs if run.seed is None or run.seed in seeds)
    return replace(rows, runs=kept)


def file_rows(lora: Path, output: Path) -> Rows:
    """One LoRA file as the only row; its images and grids go to a folder of their own.

    Raises:
        LabError: The file is missing.
    """
    if not lora.is_file():
        raise LabError(f"{lora} is missing: name a LoRA file that exists")
    save = SavedLoRA(lora, int(match[1]) if (match := _STEP_NAME.search(lora.name)) else 0, 1.0)
    run = RunLoRAs(output / lora.stem, lora.stem, "", False, (save,), "")
    return Rows("", (run,), lora.stem)


def _sweep_rows(folder: Path) -> Rows:
    path = folder / "sweep.json"
    try:
        record = read_json(path)
        runs = [_sweep_run(folder, entry) for entry in record["runs"]]
        return Rows(str(record["parameter"]), tuple(in_order(runs)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabError(f"{path} cannot be read ({error!r}): run the sweep again") from None


def _sweep_run(folder: Path, entry: dict[str, Any]) -> RunLoRAs:
    is_base, seed = entry["role"] == "base", entry["seed"]
    note = f"base, seed {seed}" if is_base else f"seed {seed}"
    run = listed_run(folder, {"folder": entry["folder"], "reuse_key": entry.get("reuse_key")})
    found = _read_run(run, str(entry["value"]), note, is_base, str(entry["error"] or ""))
    return replace(found, seed=seed if isinstance(seed, int) else None)


def in_order(runs: Sequence[RunLoRAs]) -> list[RunLoRAs]:
    """The base's rows at the place of its value if the values are rising numbers, else first.

    The rows of one value stand together, whatever the order of the seeds.
    """
    base = [run for run in runs if run.is_base]
    labels = list(dict.fromkeys(run.label for run in runs if not run.is_base))
    others = [run for label in labels for run in runs if not run.is_base and run.label == label]
    numbers = [_number(run.label) for run in others]
    value = _number(base[0].label) if base else None
    known = [number for number in numbers if number is not None]
    if value is None or len(known) < len(numbers) or known != sorted(known):
        return base + others
    below = sum(number < value for number in known)
    return others[:below] + base + others[below:]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _read_run(folder: Path, label: str, note: str, is_base: bool, error: str = "") -> RunLoRAs:
    facts = read_facts(folder) or {}
    saves = find_saves(folder, facts)
    return RunLoRAs(folder, label, note, is_base, saves, _problem(facts, error))


def _problem(facts: dict[str, Any], error: str) -> str:
    status = facts.get("status")
    if status == COMPLETE:
        return ""
    if status == ENDED_EARLY and isinstance(told := facts.get("ended_early"), dict):
        return f"run {told.get('reason', ENDED_EARLY)}"
    reason = error or str(facts.get("error") or "")
    if reason:
        return f"run failed: {reason}"
    return "run not finished" if status else "not trained"


def find_saves(folder: Path, facts: dict[str, Any]) -> tuple[SavedLoRA, ...]:
    """The LoRA files of a run in the order of their steps.

    Args:
        folder: The run folder.
        facts: What its run.json says.
    """
    files = sorted((folder / "lora").glob("*.safetensors"))
    steps = {int(match[1]): path for path in files if (match := _STEP_NAME.search(path.name))}
    total = facts.get("steps") or _total_steps(list(steps.values()))
    final = [path for path in files if not _STEP_NAME.search(path.name)]
    if final and (not steps or (total and total not in steps)):
        steps[total or 1] = final[0]
        total = total or 1
    save_every = _save_every(folder)
    return tuple(
        SavedLoRA(steps[step], step, run_share(step, total, save_every)) for step in sorted(steps)
    )


def _total_steps(files: list[Path]) -> int | None:
    """Steps of the whole run, from the metadata of the first file that can be read."""
    for path in files:
        try:
            require_regular(path)
            with safe_open(path, framework="pt") as file:
                return int((file.metadata() or {})["ss_max_train_steps"])
        except (SafetensorError, OSError, KeyError, ValueError):
            continue
    return None


def _save_every(folder: Path) -> float | None:
    try:
        config = read_yaml(folder / "config.yaml")
        return float(config["save_every"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_share(step: int, total: int | None, save_every: float | None) -> float:
    """Which share of a run a save stands for.

    Saves lie on whole steps, so that step 4 of 42 is what `save_every` 0.1 calls a tenth.

    Args:
        step: Steps done.
        total: Steps of the whole run; None if unknown, which gives 0.
        save_every: The share after which a LoRA is saved; None gives step / total.
    """
    if not total:
        return 0.0
    if save_every is None or not 0 < save_every <= 1 or step == total:
        return min(1.0, step / total)
    share = step / total
    planned = [index * save_every for index in range(1, int(1 / save_every + 1e-9) + 1)]
    nearest: float = min(planned, key=lambda other: abs(other - share))
    return round(nearest, 6)
