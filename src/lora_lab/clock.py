"""Where a run's time goes: seconds by phase, and the seconds of each step."""

import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

PHASES = ("start_up", "caching", "training", "held_out", "saving", "sampling")


class Clock:
    """Adds up wall time by phase; begins when it is made, or earlier.

    Args:
        seconds: What was used before, by phase, when a run is resumed.
        began: When the run began, as ``time.perf_counter()`` tells; None is now.
    """

    def __init__(self, seconds: dict[str, float] | None = None, began: float | None = None) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0) | (seconds or {})
        self.steps: list[float] = []
        """Seconds of each step of this process, without held-out loss and saving."""
        self._began = time.perf_counter() if began is None else began
        self._aside = 0.0
        self._step_began: float | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of the block to a phase, and not to the step or start-up around it."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self.seconds[name] += elapsed
            self._aside += elapsed

    def start_training(self) -> None:
        """Start-up is over: what has passed, without the phases in it, was start-up."""
        now = time.perf_counter()
        self.seconds["start_up"] += now - self._began - self._aside
        self._step_began, self._aside = now, 0.0

    def end_step(self) -> None:
        """A step and all that belongs to it is over."""
        if self._step_began is None:
            return
        now = time.perf_counter()
        taken = now - self._step_began - self._aside
        self.steps.append(taken)
        self.seconds["training"] += taken
        self._step_began, self._aside = now, 0.0

    def report(self) -> dict[str, float | None]:
        """Seconds by phase, and the median and 95th percentile of a step."""
        report: dict[str, float | None] = {name: round(s, 4) for name, s in self.seconds.items()}
        report["step_median"] = round(statistics.median(self.steps), 6) if self.steps else None
        report["step_p95"] = round(percentile(self.steps, 95), 6) if self.steps else None
        return report


def percentile(values: list[float], percent: float) -> float:
    """The nearest-rank percentile of a list that isn't empty."""
    ordered = sorted(values)
    rank = round(percent / 100 * (len(ordered) - 1))
    return ordered[rank]


def duration(seconds: float) -> str:
    """Seconds in words: 3900.0 -> ``1 h 5 min``, 105.2 -> ``1 min 45 s``, 8.43 -> ``8.4 s``."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
