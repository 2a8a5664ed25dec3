"""Rows of figures, and how they are summed up and printed."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class BenchmarkRow:
    """One line of the table: what ours takes, what the bare loop takes, and their ratio."""

    what: str
    ours: float
    bare: float | None
    ratio: float | None
    unit: str
    ratios: tuple[float, float] | None = None
    """The lowest and the highest ratio of a pair."""


def paired(what: str, ours: list[float], bare: list[float], unit: str) -> BenchmarkRow:
    """Sums up measurements taken in turn: medians, and the median of the ratios pair by pair.

    Args:
        what: What was measured.
        ours: One measurement a round.
        bare: The bare loop's, taken right beside ours in the same round.
        unit: Of the measurements.
    """
    ratios = [mine / theirs for mine, theirs in zip(ours, bare, strict=True)]
    return BenchmarkRow(
        what,
        statistics.median(ours),
        statistics.median(bare),
        statistics.median(ratios),
        unit,
        (min(ratios), max(ratios)),
    )


def alone(what: str, ours: list[float], unit: str) -> BenchmarkRow:
    """Sums up measurements that nothing is held against.

    Args:
        what: What was measured.
        ours: One measurement a round.
        unit: Of the measurements.
    """
    return BenchmarkRow(what, statistics.median(ours), None, None, unit)


def render(rows: list[BenchmarkRow]) -> str:
    """The rows as an aligned text table."""
    width = max((len(row.what) for row in rows), default=0)
    lines = [f"{'':{width}} {'ours':>10} {'bare':>10} {'ratio':>7} {'spread':>11}  unit"]
    for row in rows:
        bare = "" if row.bare is None else f"{row.bare:.4g}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        spread = "" if row.ratios is None else "{:.2f}–{:.2f}".format(*row.ratios)
        lines.append(
            f"{row.what:{width}} {row.ours:10.4g} {bare:>10} {ratio:>7} {spread:>11}  {row.unit}"
        )
    return "\n".join(lines)


def with_spread(values: Sequence[float]) -> str:
    """The median in three digits, and lowest to highest where there are several measurements."""
    median, *ends = (f"{one:.3g}" for one in (statistics.median(values), min(values), max(values)))
    return median if len(values) == 1 else f"{median} ({'–'.join(ends)})"


def render_columns(
    title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Sequence[float]]]]
) -> str:
    """A table of measurements whose columns are ways of doing the same.

    Args:
        title: What was measured.
        columns: Names of the ways.
        rows: (what, for each column its measurements, one a round); none leaves a cell empty.
    """
    cells = [["", *columns]]
    for what, measured in rows:
        cells.append([what, *(with_spread(values) if values else "" for values in measured)])
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns) + 1)]
    lines = [title]
    for first, *others in cells:
        aligned = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("   ".join([f"{first:{widths[0]}}", *aligned]).rstrip())
    return "\n".join(lines)
