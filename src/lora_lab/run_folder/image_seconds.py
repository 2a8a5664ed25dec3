"""Seconds that a finished run's images took, added to what run.json says of its training."""

from pathlib import Path

from lora_lab.files import write_json
from lora_lab.run_folder.record import COMPLETE, RECORD, read_facts


def add_seconds(folder: Path, phase: str, seconds: float) -> None:
    """Add to the time of a phase in run.json; a run that isn't complete is left as it is.

    Args:
        folder: The run folder.
        phase: ``sampling``: the images of grids; ``scoring``: metric images and their scores.
        seconds: What it took, of wall time.
    """
    facts = read_facts(folder)
    if facts is None or facts.get("status") != COMPLETE or not isinstance(facts["seconds"], dict):
        return
    before = facts["seconds"].get(phase) or 0.0
    facts["seconds"][phase] = round(before + seconds, 4)
    write_json(folder / RECORD, facts)
