"""Leaving out a step whose gradients must not reach the optimizer."""

import functools
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


class StepLeftOut(Exception):
    """Raised inside of a step's closure, when all gradients are there, to leave the step out."""


def leave_out_steps(optimizer: Optimizer) -> None:
    """Let a ``StepLeftOut`` that a step's closure raises end the step instead of the run.

    Every optimizer calls the closure before it reads a gradient, so neither its state nor the
    weights have changed by then. To the loop the step was taken: its counters move on.
    """
    step: Callable[..., Any] = optimizer.step

    @functools.wraps(step)
    def guarded(*arguments: Any, **named: Any) -> Any:
        try:
            return step(*arguments, **named)
        except StepLeftOut:
            return None

    optimizer.step = guarded  # type: ignore[method-assign]
