"""Whether two folders hold the same results: tensors, figures without seconds, images, verdicts."""

import csv
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

TIMES = ("seconds", "second", "memory", "bytes", "minutes", "start", "finish", "median", "p95")
"""Columns of these names measure the machine and may differ."""
ORIGIN = "reused"
"""comparison.csv: whether the last command trained a run or found it, which a kill does change."""


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two folders, one line each; nothing when all results are the same.

    Compared are LoRA files tensor by tensor, metrics.csv, held_out.csv, verdicts.csv and
    comparison.csv without times, images byte by byte, and the status of every run.

    Args:
        one: The folder of the undisturbed command.
        other: The folder of the disturbed one.
    """
    found = []
    for pattern, compare in (
        ("**/lora/*.safetensors", _same_tensors),
        ("**/*.csv", _same_table),
        ("**/*.png", _same_bytes),
        ("**/run.json", _same_status),
        ("**/sweep.json", _same_sweep),
    ):
        names = {path.relative_to(one) for path in one.glob(pattern) if _counts(path)}
        others = {path.relative_to(other) for path in other.glob(pattern) if _counts(path)}
        found += [f"{name} is missing" for name in sorted(names - others)]
        found += [f"{name} is there, too" for name in sorted(others - names)]
        for name in sorted(names & others):
            if (difference := compare(one / name, other / name)) is not None:
                found.append(f"{name}: {difference}")
    return found


def _counts(path: Path) -> bool:
    """Figures of the report show seconds, so their pictures may differ."""
    return path.suffix != ".png" or "report" not in path.parts


def _same_tensors(one: Path, other: Path) -> str | None:
    first, second = load_file(one), load_file(other)
    if first.keys() != second.keys():
        return "other tensors"
    unlike = [name for name in first if not torch.equal(first[name], second[name])]
    return f"{len(unlike)} of {len(first)} tensors differ" if unlike else None


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        {
            k: v
            for k, v in row.items()
            if k and k != ORIGIN and not any(t in k.lower() for t in TIMES)
        }
        for row in rows
    ]


def _same_table(one: Path, other: Path) -> str | None:
    first, second = _table(one), _table(other)
    if len(first) != len(second):
        return f"{len(second)} rows instead of {len(first)}"
    for number, (row, its) in enumerate(zip(first, second, strict=True), 1):
        for key in row:
            if row[key] != its.get(key):
                return f"row {number}, {key}: {its.get(key)} instead of {row[key]}"
    return None


def _same_bytes(one: Path, other: Path) -> str | None:
    return None if one.read_bytes() == other.read_bytes() else "other bytes"


def _same_status(one: Path, other: Path) -> str | None:
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (one, other))
    if first["status"] != second["status"]:
        return f"status {second['status']} instead of {first['status']}"
    return None


def _same_sweep(one: Path, other: Path) -> str | None:
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (one, other))
    runs = [[(r["name"], r["status"]) for r in record["runs"]] for record in (first, second)]
    return None if runs[0] == runs[1] else f"runs {runs[1]} instead of {runs[0]}"
