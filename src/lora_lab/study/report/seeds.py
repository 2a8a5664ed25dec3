"""Which value got how many seeds, and why no more."""

from dataclasses import dataclass

from lora_lab.study.judge.verdict import Study


@dataclass(frozen=True)
class SeedRow:
    """One value."""

    value: str
    seeds: int
    """Runs that were trained to their end."""
    why: str


def seeds_told(study: Study) -> list[SeedRow]:
    """One row per value; empty where seeds were not added round by round."""
    if not study.sweep.rounds:
        return []
    rows = []
    for value, runs in study.sweep.value_runs.items():
        why = [one.closed[value] for one in study.sweep.rounds if value in one.closed]
        last = [one.open[value] for one in study.sweep.rounds if value in one.open]
        count = sum(run.complete for run in runs)
        told = why[-1] if why else f"{last[-1]}; no more were allowed" if last else ""
        if study.sweep.max_seeds == count and not why:
            told = f"all {count} that study.max_seeds allows"
        rows.append(SeedRow(value, count, told))
    return rows
