"""Reading a run's metrics.csv, whole or cut off.

Shapes: S logged steps.
"""

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lora_lab.files import read_text

MAX_NOTES = 3  # further notes of the same file are counted, not listed


@dataclass(frozen=True)
class MetricsTable:
    """The curves of one run."""

    steps: NDArray[np.int64]
    """Steps that were logged, ascending, each once, (S,)."""
    columns: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Column name -> figures, (S,); NaN where not measured."""
    notes: tuple[str, ...] = ()
    """What was wrong with the file, one sentence each."""

    def column(self, name: str) -> NDArray[np.float64]:
        """The figures of a column, (S,); all NaN when the run didn't log it."""
        if name in self.columns:
            return self.columns[name]
        return np.full(len(self.steps), np.nan)

    def measured(self, name: str) -> bool:
        """Whether the column holds at least one finite figure."""
        return bool(np.isfinite(self.column(name)).any())


def empty_table(*notes: str) -> MetricsTable:
    """A table without steps, with the reasons why."""
    return MetricsTable(np.zeros(0, np.int64), {}, notes)


def read_metrics(path: Path) -> MetricsTable:
    """Read a metrics.csv; a damaged file gives what is whole in it and says what is not.

    Rows of one step are joined (a later measurement wins), so that a resumed run or a validation
    row doesn't count twice. A last line without its line end was cut off while it was written
    and is left out.

    Args:
        path: The file.

    Returns:
        The curves with notes; an empty table when the file is missing or unreadable.
    """
    try:
        text = read_text(path, errors="replace")
    except FileNotFoundError:
        return empty_table(f"{path.name} is missing")
    except OSError as error:
        return empty_table(f"{path.name} could not be read ({error.strerror or error})")
    notes = []
    if text and not text.endswith(("\n", "\r")):
        text, _, cut = text.rpartition("\n")
        notes.append(f"{path.name} ends in the middle of a line: {cut[:40]!r} was left out")
    lines = text.splitlines()
    if not lines:
        return empty_table(*notes, f"{path.name} is empty")
    header = next(csv.reader(lines[:1]))
    if "step" not in header:
        return empty_table(*notes, f"{path.name} has no column named step")
    rows, bad = _rows(lines, header)
    notes += [f"{path.name} {problem}: this line was left out" for problem in bad[:MAX_NOTES]]
    if len(bad) > MAX_NOTES:
        notes.append(f"{path.name}: {len(bad) - MAX_NOTES} more lines were left out")
    return _table(rows, [name for name in header if name not in ("", "step")], notes)


def _rows(lines: list[str], header: list[str]) -> tuple[dict[int, dict[str, float]], list[str]]:
    """Step -> measured figures, and what is wrong with the lines that can't be read."""
    rows: dict[int, dict[str, float]] = {}
    bad = []
    reader = csv.reader(lines[1:])
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            bad.append(f"line {reader.line_num + 1} is not CSV ({error})")
            continue
        if cells is None:
            return rows, bad
        if not cells:
            continue
        if len(cells) != len(header):
            bad.append(
                f"line {reader.line_num + 1} has {len(cells)} cells instead of {len(header)}"
            )
            continue
        try:
            figures = {n: float(c) for n, c in zip(header, cells, strict=True) if c.strip()}
            step = int(figures.pop("step"))
        except (ValueError, KeyError, OverflowError):
            bad.append(f"line {reader.line_num + 1} holds something that is not a number")
            continue
        rows.setdefault(step, {}).update(figures)


def _table(rows: dict[int, dict[str, float]], names: list[str], notes: list[str]) -> MetricsTable:
    steps = sorted(rows)
    columns = {
        name: np.array([rows[step].get(name, np.nan) for step in steps], np.float64)
        for name in names
    }
    if not steps:
        notes = [*notes, "metrics.csv holds no step"]
    return MetricsTable(np.array(steps, np.int64), columns, tuple(notes))
