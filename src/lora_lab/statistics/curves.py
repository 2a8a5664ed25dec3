"""Small statistics on curves and replicates, as pure functions of NumPy arrays.

Shapes: S steps of one run, R runs (replicates), P points that the runs share. NaN means "not
measured" and never counts.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def sample_sd(values: Array) -> float:
    """Standard deviation of replicates with n - 1 in the denominator.

    Args:
        values: One figure a replicate, (R,).

    Returns:
        The standard deviation in the figure's unit; NaN for fewer than two finite figures.
    """
    finite = values[np.isfinite(values)]
    if len(finite) < 2:
        return float("nan")
    return float(np.std(finite, ddof=1))


def pooled_sd(curves: Array) -> float:
    """Standard deviation between replicates, pooled over the points of their curves.

    The root of the mean variance over the points, so that two curves that happen to cross at one
    point don't look alike.

    Args:
        curves: One curve a replicate, (R, P); points with fewer than two finite values are left
            out.

    Returns:
        The pooled standard deviation; NaN when no point has two finite values.
    """
    deviations = np.array([sample_sd(curves[:, point]) for point in range(curves.shape[1])])
    deviations = deviations[np.isfinite(deviations)]
    if len(deviations) == 0:
        return float("nan")
    return float(np.sqrt(np.mean(deviations**2)))


def tail_mean(values: Array, share: float) -> float:
    """Mean of the finite values among the last ``share`` of a curve.

    Args:
        values: A curve, (S,).
        share: Part of the curve, 0 < share <= 1; at least one point is taken.

    Returns:
        The mean; NaN when nothing there was measured.
    """
    if len(values) == 0:
        return float("nan")
    count = max(1, int(np.ceil(share * len(values))))
    tail = values[-count:]
    tail = tail[np.isfinite(tail)]
    return float(np.mean(tail)) if len(tail) else float("nan")


def last_finite(values: Array) -> float:
    """The last measured value of a curve, (S,); NaN when there is none."""
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if len(finite) else float("nan")


def moving_average(values: Array, window: int) -> Array:
    """Centred moving average that gets narrower at the ends instead of bending there.

    Args:
        values: A curve, (S,); NaN is left out of the means.
        window: Points in a full window, >= 1; an even number is taken as the next odd one.

    Returns:
        The smoothed curve, (S,); NaN where a window holds nothing measured.
    """
    half = max(0, window // 2)
    measured = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(measured, values, 0.0))])  # (S + 1,)
    counts = np.concatenate([[0], np.cumsum(measured)])  # (S + 1,)
    index = np.arange(len(values))
    reach = np.minimum(half, np.minimum(index, len(values) - 1 - index))
    low, high = index - reach, index + reach + 1
    count = counts[high] - counts[low]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, (sums[high] - sums[low]) / count, np.nan)


def paired_difference(
    points: NDArray[np.int64], values: Array, base_points: NDArray[np.int64], base_values: Array
) -> tuple[NDArray[np.int64], Array]:
    """Difference value - base at the points that both curves measured.

    Args:
        points: Steps (or epochs) of the value's curve, (S,), each at most once.
        values: The value's figures, (S,).
        base_points: The same of the base, (T,).
        base_values: The base's figures, (T,).

    Returns:
        The shared points in ascending order, (P,), and the differences there, (P,).
    """
    shared, own, base = np.intersect1d(points, base_points, return_indices=True)
    difference = values[own] - base_values[base]
    measured = np.isfinite(difference)
    return shared[measured], difference[measured]
