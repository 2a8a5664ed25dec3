"""Where a run lies that a sweep.json lists: in the sweep's folder, or where another sweep has it.

A sweep.json may come from anybody, and what it names is read, shown in a report, and written to.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_lab.errors import LabError, clipped
from lora_lab.run_folder.record import read_facts

GONE = "a shared run that is gone"
"""Folder in which nothing is found."""


def listed_run(sweep: Path, entry: Mapping[str, Any]) -> Path:
    """Return the folder of a run.

    Outside of the sweep's folder lie runs that it shares with others (`study.reuse_from`): beside
    it in the same folder, or elsewhere if sweep.json knows the run's reuse_key, which nobody can
    guess.

    Args:
        sweep: The folder that holds sweep.json.
        entry: What it says of the run.

    Raises:
        LabError: The run lies elsewhere.
    """
    told = str(entry.get("folder") or entry.get("name") or "")
    folder = sweep / told
    try:
        place, own = folder.resolve(), sweep.resolve()
        there = folder.exists()  # raises for a name that no system has
        if place.is_relative_to(own):
            return folder
        if not there:
            return sweep / GONE
        key = (read_facts(folder) or {}).get("reuse_key")
        if key and (place.is_relative_to(own.parent) or entry.get("reuse_key") == key):
            return folder
    except (OSError, ValueError, RuntimeError):  # no path, or links in a circle
        pass
    raise LabError(
        f"{sweep / 'sweep.json'} lists a run outside of its folder, {clipped(told)}: run the sweep "
        "again to write it again, or look for another copy of it"
    )
