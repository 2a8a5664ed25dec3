"""Strengths from paired choices: Bradley and Terry 1952, Biometrika 39, 324-345.

P(i is chosen over j) = strength_i / (strength_i + strength_j), fitted by the MM steps of Hunter
2004, Annals of Statistics 32, 384-406, equation 3. A tie counts as half a win of each.

Shapes: N items.
"""

import numpy as np
from numpy.typing import NDArray

PRIOR = 0.5
"""Wins that each item is given over every item it met: one that always won stays finite."""
STEPS = 1000
TOLERANCE = 1e-10


def strengths(wins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fit the strengths of items that were compared in pairs.

    Args:
        wins: How often the item of the row was chosen over that of the column, (N, N); ties as
            0.5 in both; the diagonal is 0.

    Returns:
        Strengths with a geometric mean of 1, (N,); NaN for an item that met no other.
    """
    met = (wins + wins.T) > 0
    counted = wins + PRIOR * met
    games = counted + counted.T  # (N, N)
    known = met.any(axis=1)
    found = np.ones(len(wins))
    for _ in range(STEPS):
        sums = np.where(games > 0, games / (found[:, None] + found[None, :]), 0.0).sum(axis=1)
        new = np.where(known, counted.sum(axis=1) / np.where(known, sums, 1.0), 1.0)
        new /= np.exp(np.mean(np.log(new[known]))) if known.any() else 1.0
        if np.max(np.abs(np.log(new) - np.log(found))) < TOLERANCE:
            break
        found = new
    return np.where(known, found, np.nan)
