"""sweep.json: the parameter, its values, the base value, and the folder and status of each run."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lora_lab.cli.sweep_plan import Plan, PlannedRun
from lora_lab.errors import LabError
from lora_lab.files import read_json, write_json
from lora_lab.run_folder.record import COMPLETE, FAILED, read_facts

FILE_NAME = "sweep.json"


@dataclass
class RunEntry:
    """What sweep.json says of one run."""

    name: str
    """base/seed=<s> or <parameter>=<value>/seed=<s>."""
    folder: str
    """Run folder, relative to the sweep folder; a run shared with another sweep begins with ..."""
    value: str
    """The swept parameter's value."""
    role: str
    """base or value."""
    seed: int
    """Seed of the run."""
    status: str
    """waiting, paused, ended early, complete or failed."""
    reused: bool
    """Whether it was there already and was not trained again."""
    error: str | None
    """Why it failed."""
    reuse_key: str | None = None
    """Of a run that is shared with another sweep: what its run.json must say."""


@dataclass(frozen=True)
class Round:
    """What one look at the runs so far decided."""

    look: int
    """Seeds of the values that were looked at."""
    seeds: list[int]
    """Seeds that were added after it; empty where no value gets more."""
    open: dict[str, str] = field(default_factory=dict)
    """Value -> why it gets more seeds."""
    closed: dict[str, str] = field(default_factory=dict)
    """Value -> why it gets none."""


def planned_entries(
    runs: Sequence[PlannedRun], shared: Mapping[str, Path], sweep_dir: Path
) -> list[RunEntry]:
    """Return the entries of runs that haven't begun.

    Args:
        runs: What is to be run.
        shared: Names of runs that are complete elsewhere, and their folders.
        sweep_dir: The sweep folder.
    """
    entries = []
    for run in runs:
        elsewhere = shared.get(run.name)
        folder = run.name
        if elsewhere is not None:
            folder = Path(os.path.relpath(elsewhere, sweep_dir)).as_posix()
        entries.append(
            RunEntry(
                name=run.name,
                folder=folder,
                value=run.value,
                role="base" if run.is_base else "value",
                seed=run.config.seed,
                status="waiting" if elsewhere is None else "complete",
                reused=elsewhere is not None,
                error=None,
                reuse_key=None if elsewhere is None else _reuse_key(elsewhere, sweep_dir),
            )
        )
    return entries


def _reuse_key(run: Path, sweep_dir: Path) -> str | None:
    """What tells a shared run from any other; None for a run of the sweep's own."""
    if run.resolve().is_relative_to(sweep_dir.resolve()):
        return None
    key = (read_facts(run) or {}).get("reuse_key")
    return key if isinstance(key, str) else None


def settle_entry(
    entry: RunEntry,
    error: str | None,
    sweep_dir: Path,
    broken_off: bool = False,
    ends: Collection[str] = (COMPLETE,),
) -> None:
    """Enter how a run ended.

    Args:
        entry: The run's entry, which is changed.
        error: Why it failed, in one line; None when its job came to its end.
        sweep_dir: The sweep folder.
        broken_off: Whether the launcher broke off, after which the run's folder tells how it is.
        ends: What run.json says of a run that has come as far as it was to come.
    """
    status = (read_facts(sweep_dir / entry.folder) or {}).get("status")
    if broken_off and status in ends:
        error = None  # others were lost, not this one
    if error is None and status not in ends:
        error = f"the job ended, but {entry.folder}/run.json doesn't say that the run is complete"
    entry.status = str(status) if error is None else FAILED
    entry.error = error


def write_record(
    sweep_dir: Path, plan: Plan, entries: Sequence[RunEntry], rounds: Sequence[Round] = ()
) -> None:
    """Write sweep.json, whole or not at all.

    Args:
        sweep_dir: The sweep folder.
        plan: What was planned.
        entries: All runs, those of added seeds too.
        rounds: The looks after which seeds were added or not.

    Raises:
        LabError: The folder can't be written.
    """
    record = {
        "parameter": plan.parameter,
        "values": list(plan.values),
        "base_value": plan.base_value,
        "seeds": list(plan.seeds),
        "max_seeds": plan.base.config.study.max_seeds,
        "early_end": plan.base.config.study.early_end,
        "margin": plan.base.config.study.margin,
        "runs": [asdict(entry) for entry in entries],
        "overrides": list(plan.overrides),
        "launcher": list(plan.launcher),
        "rounds": [asdict(one) for one in rounds],
    }
    write_json(sweep_dir / FILE_NAME, record)


def read_parameter(sweep_dir: Path) -> str | None:
    """Return the parameter of the sweep that a folder holds; None when it holds none.

    Raises:
        LabError: There is a sweep.json that can't be read.
    """
    path = sweep_dir / FILE_NAME
    if not path.is_file():
        return None
    try:
        record: Any = read_json(path)
        return str(record["parameter"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LabError(f"{path} cannot be read; remove it or choose another folder") from error
