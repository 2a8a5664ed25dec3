"""Rows of figures, and how they are summed up and printed."""

import statistics
from dataclasses import dataclass


@dataclass(frozen=True)
class BenchmarkRow:
    """One line of the table: what ours takes, what the bare loop takes, and their ratio."""

    what: str
    ours: float
    bare: float | None
    ratio: float | None
    unit: str


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
        what, statistics.median(ours), statistics.median(bare), statistics.median(ratios), unit
    )


def render(rows: list[BenchmarkRow]) -> str:
    """The rows as an aligned text table."""
    lines = [f"{'':44} {'ours':>10} {'bare':>10} {'ratio':>7}  unit"]
    for row in rows:
        bare = "" if row.bare is None else f"{row.bare:.4g}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        lines.append(f"{row.what:44} {row.ours:10.4g} {bare:>10} {ratio:>7}  {row.unit}")
    return "\n".join(lines)
