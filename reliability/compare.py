"""Whether two folders hold the same results: tensors, figures without seconds, images, verdicts."""

import csv
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

TIMES = ("seconds", "second", "memory", "bytes", "minutes", "start", "finish", "median", "p95")
"""Columns of these names measure the machine and may differ."""
ORIGIN = "reused"
"""comparison.csv: whether the last command trained a run or found it, which a kill does change."""


def differences(one: Path, other: Path, tolerance: float = 0.0) -> list[str]:
    """What differs between two folders, one line each; nothing when all results are the same.

    Compared are LoRA files tensor by tensor, metrics.csv, held_out.csv, verdicts.csv and
    comparison.csv without times, images byte by byte, and the status of every run.

    Args:
        one: The folder of the undisturbed command.
        other: The folder of the disturbed one.
        tolerance: How far tensors may differ, as a share of the LoRA's largest entry. Figures may
            by ten times that share of themselves or by a hundredth of it, since small differences
            of losses are among them, and a value of an image by 1 of 255.
    """
    found = []
    for pattern, compare in (
        ("**/lora/*.safetensors", partial(_same_tensors, tolerance=tolerance)),
        ("**/*.csv", partial(_same_table, tolerance=tolerance)),
        ("**/*.png", partial(_same_image, tolerance=tolerance)),
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


def _same_tensors(one: Path, other: Path, tolerance: float) -> str | None:
    first, second = load_file(one), load_file(other)
    if first.keys() != second.keys():
        return "other tensors"
    weights = [name for name in first if not name.endswith(".alpha")]  # no training changes alpha
    bound = tolerance * max((float(first[name].abs().max()) for name in weights), default=0.0)
    unlike = [
        name
        for name in first
        if not _near(first[name], second[name], bound if name in weights else 0.0)
    ]
    return f"{len(unlike)} of {len(first)} tensors differ" if unlike else None


def _near(one: Tensor, other: Tensor, bound: float) -> bool:
    """Whether no entry differs by more than a bound; one that is NaN is like none."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.allclose(one, other, rtol=0.0, atol=bound)


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


def _same_table(one: Path, other: Path, tolerance: float) -> str | None:
    first, second = _table(one), _table(other)
    if len(first) != len(second):
        return f"{len(second)} rows instead of {len(first)}"
    for number, (row, its) in enumerate(zip(first, second, strict=True), 1):
        for key in row:
            if not _alike(row[key], its.get(key), tolerance):
                return f"row {number}, {key}: {its.get(key)} instead of {row[key]}"
    return None


def _alike(text: str, its: str | None, tolerance: float) -> bool:
    if text == its or its is None:
        return text == its
    try:
        one, other = float(text), float(its)
    except ValueError:
        return False
    return math.isclose(one, other, rel_tol=10 * tolerance, abs_tol=tolerance / 100)


def _same_image(one: Path, other: Path, tolerance: float) -> str | None:
    if one.read_bytes() == other.read_bytes():
        return None
    if not tolerance:
        return "other bytes"
    first, second = (np.asarray(Image.open(path), dtype=int) for path in (one, other))
    if first.shape != second.shape:
        return "another size"
    most = int(abs(first - second).max())
    return None if most <= 1 else f"values differ by {most} of 255"


def _same_status(one: Path, other: Path) -> str | None:
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (one, other))
    if first["status"] != second["status"]:
        return f"status {second['status']} instead of {first['status']}"
    return None


def _same_sweep(one: Path, other: Path) -> str | None:
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (one, other))
    runs = [[(r["name"], r["status"]) for r in record["runs"]] for record in (first, second)]
    return None if runs[0] == runs[1] else f"runs {runs[1]} instead of {runs[0]}"
