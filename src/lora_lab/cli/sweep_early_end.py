"""`study.early_end`: runs pause at a third of their steps, and values that are worse there end.

Which values end is found anew from the losses of that step whenever the command is given, so an
interrupted sweep goes on as if it had not been, and nothing has to be believed.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lora_lab.cli.sweep_plan import Plan, PlannedRun
from lora_lab.cli.sweep_record import RunEntry
from lora_lab.config import TrainConfig
from lora_lab.run_folder.folder import RunFolder
from lora_lab.run_folder.record import COMPLETE, ENDED_EARLY, PAUSED

log = logging.getLogger(__name__)

Open = Callable[[Path, TrainConfig], RunFolder]
"""Opens a run's folder."""


def first_leg(
    plan: Plan, opened: Mapping[str, RunFolder], entries: Sequence[RunEntry]
) -> list[PlannedRun]:
    """The runs that are to be trained up to the pause; those that paused before are noted as such.

    A value of which any run is complete ends no more, so its other runs go to their end at once.
    Without any other value nothing pauses.

    Args:
        plan: What the sweep runs.
        opened: Folders of the runs that aren't complete, by the run's name.
        entries: The runs; statuses are changed.
    """
    finished = {run.value for run in plan.runs if not run.is_base and run.name not in opened}
    if all(run.is_base or run.value in finished for run in plan.runs):
        return []
    by_name = {entry.name: entry for entry in entries}
    leg = []
    for run in plan.runs:
        if run.name not in opened or (not run.is_base and run.value in finished):
            continue
        if opened[run.name].paused_at is None:
            leg.append(run)
        else:
            by_name[run.name].status = PAUSED
    return leg


def end_worse_values(folder: Path, plan: Plan, entries: Sequence[RunEntry], open_run: Open) -> None:
    """Judge the values where their runs have paused, and end those that are clearly worse.

    Args:
        folder: The sweep folder, whose sweep.json is up to date.
        plan: What the sweep runs.
        entries: The runs; statuses are changed.
        open_run: Opens a run's folder.

    Raises:
        LabError: What the runs left can't be read, or a run's folder can't be written.
    """
    from lora_lab.study.judge.early_end import worse_values  # imports NumPy: --help stays fast
    from lora_lab.study.read.load import as_text, load_sweep

    configs = {run.name: run.config for run in plan.runs}
    ended = worse_values(load_sweep(folder))
    for value, end in ended.items():
        log.info("%s %s", value, end.words)
    for entry in entries:
        found = ended.get(as_text(entry.value))
        if entry.role == "base" or found is None or entry.status != PAUSED:
            continue
        config = replace(configs[entry.name], resume=True, overwrite=False)
        run = open_run(folder / entry.folder, config)
        run.end_early(found.step, found.words)
        entry.status = ENDED_EARLY


def second_leg(plan: Plan, entries: Sequence[RunEntry]) -> list[PlannedRun]:
    """The runs that go to their end: all but those that ended early, failed, or are complete."""
    ended = {
        entry.name
        for entry in entries
        if entry.status in (COMPLETE, ENDED_EARLY) or entry.error is not None
    }
    return [run for run in plan.runs if run.name not in ended]
