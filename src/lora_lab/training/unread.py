"""Numbers of steps that stay on the device until those of several steps are read at once.

A host that reads a number waits until the device has computed it, and then the device waits until
the host has the next step ready. So a step's loss, its d and whether its gradients are finite are
kept, and read every few steps and before anything is saved.
"""

from collections.abc import Callable

import torch
from torch import Tensor

STEPS_A_READ = 10
"""Optimizer steps whose numbers are read at once, where the device isn't the CPU."""


class Unread:
    """What has been computed and not yet been looked at, in its order."""

    def __init__(self) -> None:
        self._kept: list[tuple[Tensor, Callable[[list[float]], None]]] = []

    def add(self, numbers: Tensor, tell: Callable[[list[float]], None]) -> None:
        """Keep numbers until they are read.

        Args:
            numbers: (N,), which nobody changes any more.
            tell: Called with them, in the order in which they were added.
        """
        self._kept.append((numbers, tell))

    def read(self) -> None:
        """Read all of them in one copy, and tell of each; without any, the device goes on.

        Raises:
            LabError: What was told of ends the run; the rest is told of no more.
        """
        if not self._kept:
            return
        kept, self._kept = self._kept, []
        values = iter(torch.cat([numbers for numbers, _ in kept]).tolist())
        for numbers, tell in kept:
            tell([next(values) for _ in range(len(numbers))])
