"""Runs of one process that are trained at the same time, each as if it were alone.

Each run is an ordinary training in a thread of its own: trainer, loader, optimizer, callbacks and
folder are those of a run alone. One thread works at a time. When a run needs the base model it asks
for a pass and waits; when all runs wait, those that ask for the same get it from one pass, with
their batches behind each other (`network/stacked.py`). The passes are made by the thread that
started the stack, which also hears the signals.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.config import TrainConfig
from lora_lab.errors import LabError, Stopped
from lora_lab.network.stacked import LoRAStack, Member
from lora_lab.text.caption_encoder import KeptAnswers, encode_captions
from lora_lab.training.acceleration import accelerated
from lora_lab.training.callbacks.stop import ENDING, SIGNALS
from lora_lab.training.stacked_run import BACKWARD, ENCODE, StackedRun
from lora_lab.training.trainer import set_hardware

log = logging.getLogger(__name__)

T = TypeVar("T")


class RunStack:
    """Runs that share the passes of one base model."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.ready = threading.Condition(self.turn)
        self.runs: list[StackedRun] = []
        self.loras: LoRAStack | None = None
        self.config: TrainConfig | None = None
        self.signal: int | None = None
        self.estimated_bytes: int | None = None
        self.kept = KeptAnswers()
        self.taken: set[str] = set()
        self._prepared: torch.device | None = None
        self._undo = ExitStack()

    def take_in(self, base: BaseModel, member: Member, config: TrainConfig) -> int:
        """Add a run's LoRA; returns its number among the LoRAs.

        Raises:
            LabError: The run is on another base model than the others.
        """
        if self.loras is None:
            self.loras, self.config = LoRAStack(base), config
        if self.loras.base is not base:
            raise LabError("runs of two base checkpoints can't be trained in one stack")
        return self.loras.add(member)

    def prepare(self, device: torch.device) -> None:
        """What Lightning and callbacks do to the base of a run alone, once for all runs."""
        if self._prepared == device:
            return
        assert self.loras is not None and self.config is not None
        base = self.loras.base
        set_hardware(self.config.trainer)
        for part in (base.unet, base.text_encoder):
            part.to(device)
            part.train()
        self._undo.enter_context(accelerated(base, self.config.trainer))
        self._prepared = device

    def make_passes(self) -> None:
        """Answer the runs until all have ended."""
        while True:
            while any(not run.ended and not run.waits for run in self.runs):
                self.ready.wait()
            waiting = [run for run in self.runs if run.waits and not run.waits_for_turn]
            if not waiting:
                return
            for group in _groups(_first(waiting)):
                try:
                    answers = self._pass(group)
                except Exception as error:
                    problem = _problem(error, len(group))
                    for run in group:
                        run.answer(None, problem)
                    continue
                for run, answer in zip(group, answers, strict=True):
                    run.answer(answer)

    def interrupt(self) -> None:
        """End all runs at once, as Ctrl-C does."""
        while any(not run.ended for run in self.runs):
            for run in self.runs:
                if run.waits:
                    run.answer(None, KeyboardInterrupt())
            self.ready.wait(timeout=1.0)

    def close(self) -> None:
        """Leave the base as it was."""
        if self.loras is not None:
            self.loras.remove()
        self._undo.close()

    def _pass(self, group: list[StackedRun]) -> Sequence[Tensor | None]:
        requests = [run.request for run in group if run.request is not None]
        if requests[0].kind == BACKWARD:
            torch.autograd.backward([one.tensors[0] for one in requests])
            return [None] * len(group)
        assert self.loras is not None
        kind, (learns, autocast, dtype, *settings) = requests[0].kind, requests[0].settings
        joined: list[Any] = [
            None if parts[0] is None else torch.cat(parts)
            for parts in zip(*[one.tensors for one in requests], strict=True)
        ]
        device = joined[0].device
        members = [run.member for run in group if run.member is not None]
        part = "text_encoder" if kind == ENCODE else "unet"
        with (
            torch.set_grad_enabled(learns),
            torch.autocast(device.type, dtype, enabled=autocast),
            self.loras.runs(part, members),
        ):
            if kind == ENCODE:
                answer = encode_captions(self.loras.base.text_encoder, *joined, *settings)
            else:
                answer = self.loras.denoise(*joined)
            return answer.chunk(len(group))


def _first(waiting: list[StackedRun]) -> list[StackedRun]:
    """The runs that are answered now: those that measure, or else those furthest behind."""
    measuring = [run for run in waiting if run.request is not None and not run.request.learns]
    if measuring:
        return measuring
    behind = min(run.place for run in waiting)
    return [run for run in waiting if run.place == behind]


def _groups(runs: list[StackedRun]) -> list[list[StackedRun]]:
    """Runs that one pass can answer."""
    groups: dict[Any, list[StackedRun]] = {}
    for run in runs:
        assert run.request is not None
        groups.setdefault(run.request.key, []).append(run)
    return list(groups.values())


def _problem(error: Exception, runs: int) -> LabError:
    """What a run is told of a pass that failed."""
    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in text:
        smaller = max(1, runs // 2)
        return LabError(
            f"{runs} runs at once need more memory than there is: set "
            f"hydra.launcher.stack={smaller}, and the same command resumes them"
        )
    return LabError(f"a pass of the base model for {runs} runs failed: {text}")


@dataclass
class _Ending(Generic[T]):
    """How a job ended."""

    value: T | None = None
    error: BaseException | None = field(default=None)


def train_together(
    jobs: Sequence[Callable[[StackedRun], T]],
    names: Sequence[str],
    estimated_bytes: int | None = None,
) -> list[T]:
    """Do several jobs at once, each of which trains one run.

    Args:
        jobs: Called with the run's hold on the stack, each in a thread named after it. The first
            part of each, up to its first pass, is done before the next one begins.
        names: Of the runs.
        estimated_bytes: What they are thought to need, for run.json.

    Returns:
        What the jobs returned.

    Raises:
        Stopped: A signal ended the runs, which can be resumed.
        KeyboardInterrupt: Ctrl-C.
    """
    stack = RunStack()
    stack.estimated_bytes = estimated_bytes
    stack.runs = [StackedRun(stack, number) for number in range(len(jobs))]
    endings: list[_Ending[T]] = [_Ending() for _ in jobs]

    def work(number: int) -> None:
        run = stack.runs[number]
        with stack.turn:
            try:
                endings[number].value = jobs[number](run)
            except BaseException as error:
                endings[number].error = error
            run.ended = True
            stack.ready.notify()

    with _listening(stack) as handlers, stack.turn:
        try:
            for number, name in enumerate(names):
                run = stack.runs[number]
                threading.Thread(target=work, args=(number,), name=name).start()
                while not run.ended and not run.waits:
                    stack.ready.wait()
            stack.make_passes()
        except BaseException:
            stack.interrupt()
            raise
        finally:
            stack.close()
    errors = [one.error for one in endings if one.error is not None]
    stopped = next((error for error in errors if isinstance(error, Stopped)), None)
    if stopped is not None:
        handled = stopped.number not in ENDING and callable(handlers.get(stopped.number))
        if handled:
            signal.raise_signal(stopped.number)  # submitit hands the job to slurm again, and exits
    for error in (stopped, *errors):
        if error is not None:
            raise error
    return [one.value for one in endings]  # type: ignore[misc]  # each has one, or raised


@contextmanager
def _listening(stack: RunStack) -> Iterator[dict[int, Any]]:
    """Note a signal for the runs, which save and stop at the end of their step."""

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and stack.signal == signal.SIGINT:
            raise KeyboardInterrupt
        stack.signal = number

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield before
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
