"""How the d of an adaptive optimizer grew, from its curve.

With a growth rate r, D-Adaptation lets d grow by at most the factor r a step (dadaptation,
`growth_rate`): while it is held back, d is d0 · r^k exactly. Without one it jumps. Shapes: S steps.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-3
"""Two steps grow alike when their factors differ by less, as a share."""
LEAST = 1.0005
"""A smaller factor is no growth."""
STAYED = 1.01
"""A d that ends below this multiple of its start has not left it."""
MIN_STEPS = 8
"""So many steps in a row must grow alike to speak of a rate."""


@dataclass(frozen=True)
class Growth:
    """How d grew."""

    first: float = math.nan
    """The first d."""
    last: float = math.nan
    """The largest d, where it ended: d never shrinks."""
    factor: float = math.nan
    """Factor by which it grew in each step while it was held back; NaN when nothing held it."""
    start: int = 0
    """First step of that stretch."""
    end: int = 0
    """Its last step."""
    largest: float = math.nan
    """The largest growth in one step, a factor."""

    @property
    def stayed(self) -> bool:
        """Whether d never left its start, so that next to nothing was learned."""
        return math.isfinite(self.last) and self.last < STAYED * self.first


def measure_growth(steps: NDArray[np.int64], d: NDArray[np.float64]) -> Growth:
    """Find the stretch in which d grew by one factor a step.

    A limit is the largest growth of the run: a run that grew faster elsewhere wasn't held back.

    Args:
        steps: Steps, ascending, (S,).
        d: The optimizer's d at each, (S,); not finite or 0 where it isn't known.
    """
    known = np.isfinite(d) & (d > 0)
    steps, d = steps[known], d[known]
    if len(d) < 2:
        return Growth(*(float(d[0]),) * 2) if len(d) else Growth()
    gaps = np.diff(steps)
    factors = (d[1:] / d[:-1]) ** (1.0 / gaps)  # (S-1,), per step
    begin, end = _longest_stretch(factors)
    found = end - begin >= MIN_STEPS and factors.max() < (1 + 2 * TOLERANCE) * factors[begin]
    return Growth(
        first=float(d[0]),
        last=float(d.max()),
        factor=float(np.exp(np.log(factors[begin:end]).mean())) if found else math.nan,
        start=int(steps[begin]) if found else 0,
        end=int(steps[end]) if found else 0,
        largest=float(factors.max()),
    )


def _longest_stretch(factors: NDArray[np.float64]) -> tuple[int, int]:
    """First and one past the last of the longest row of equal factors that are growth."""
    best, begin = (0, 0), 0
    for index in range(len(factors)):
        grows = factors[index] > LEAST
        alike = index > begin and abs(factors[index] / factors[index - 1] - 1) < TOLERANCE
        if not grows:
            begin = index + 1
        elif not alike:
            begin = index
        if grows and index + 1 - begin > best[1] - best[0]:
            best = (begin, index + 1)
    return best
