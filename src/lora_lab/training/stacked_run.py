"""What a run that is trained with others asks the base model through.

The runs of a stack (`stack.py`) are threads of which one works at a time. A run that needs the base
asks for a pass here and waits for the answer. What the runs would all do alike, one does for all.

Shapes: B images a batch, C latent channels, h and w latent sides.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.config import TrainConfig
from lora_lab.network import LoRANetwork
from lora_lab.network.stacked import Member, Trained
from lora_lab.text.caption_encoder import KeptAnswers

ENCODE, DENOISE, BACKWARD = "encode", "denoise", "backward"
TURN = "turn"
"""Asks for no pass: another run is at what this one would do as well."""
ORDER = {ENCODE: 0, DENOISE: 1, BACKWARD: 2}
"""In which order a batch asks for them."""


@dataclass
class Request:
    """What a run waits for."""

    kind: str
    tensors: tuple[Any, ...]
    """Of the run; None where there are no token weights."""
    settings: tuple[Any, ...]
    """Runs with the same settings and shapes share a pass."""
    answer: Tensor | None = None
    error: BaseException | None = None
    answered: bool = False

    @property
    def key(self) -> tuple[Any, ...]:
        """What two requests share that can be answered by one pass."""
        shapes = tuple(None if one is None else (one.shape, one.dtype) for one in self.tensors)
        return self.kind, shapes, self.settings

    @property
    def learns(self) -> bool:
        """Whether it belongs to a training step, and not to a measurement."""
        return bool(self.settings[0])


class Stack(Protocol):
    """What a run needs to know of the stack that it is in."""

    turn: threading.Lock
    """Held by the thread that works."""
    ready: threading.Condition
    """Wakes the thread that makes the passes."""
    runs: list["StackedRun"]
    signal: int | None
    """The signal that asks all runs to save and stop; None: go on."""
    estimated_bytes: int | None
    """What the stack is thought to need; None: it wasn't measured."""
    kept: KeptAnswers
    """What the frozen text encoder said to any of the runs."""
    taken: set[str]
    """What one run does while the others wait for it."""

    def prepare(self, device: torch.device) -> None:
        """Put the base on a device, as the trainer's settings want it."""

    def take_in(self, base: BaseModel, member: Member, config: TrainConfig) -> int:
        """Add a run's LoRA; returns its number among the LoRAs."""


class StackedRun:
    """One run's hold on the stack: what it asks the base model through.

    Args:
        stack: The runs that are trained together.
        number: Of the run.
    """

    def __init__(self, stack: Stack, number: int) -> None:
        self.stack = stack
        self.number = number
        self.member: int | None = None
        self.request: Request | None = None
        self.ended = False
        self.batches = 0
        """Batches that were learnt from."""
        self.wake = threading.Condition(stack.turn)

    @property
    def asked_to_stop(self) -> int | None:
        """The signal that asks all runs to save and stop; None: go on."""
        return self.stack.signal

    @property
    def kept(self) -> KeptAnswers:
        """What the frozen text encoder said to any of the runs."""
        return self.stack.kept

    def prepare(self, device: torch.device) -> None:
        """Put the base on a device, as the trainer's settings want it."""
        self.stack.prepare(device)

    def facts(self) -> dict[str, Any]:
        """For run.json: with how many runs this one was trained, and the bytes that were expected.

        What was needed stands there as peak_memory_bytes.
        """
        return {
            "stack": {
                "runs": len(self.stack.runs),
                "estimated_bytes": self.stack.estimated_bytes,
            }
        }

    def join(
        self, base: BaseModel, network: LoRANetwork, config: TrainConfig, trained: Trained
    ) -> None:
        """Put the run's LoRA into the stack.

        Raises:
            LabError: The run is on another base model than the others.
        """
        self.member = self.stack.take_in(
            base, Member(network, config.model.clip_skip, trained), config
        )

    def encode(
        self,
        text_encoder: Any,
        input_ids: Tensor,
        weights: Tensor | None,
        clip_skip: int,
        restore_mean: bool,
    ) -> Tensor:
        """As `encode_captions`, with the run's LoRA."""
        return self._ask(ENCODE, (input_ids, weights), clip_skip, restore_mean)

    def denoise(self, noisy: Tensor, timesteps: Tensor, hidden: Tensor) -> Tensor:
        """What the UNet makes of noisy latents and encoded captions, (B, C, h, w)."""
        return self._ask(DENOISE, (noisy, timesteps, hidden))

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients to those of the run's LoRA."""
        self._ask(BACKWARD, (loss,))

    @contextmanager
    def one_at_a_time(self, what: str) -> Iterator[None]:
        """While the block runs, other runs that come to it wait.

        Args:
            what: Names the block.
        """
        while what in self.stack.taken:
            self._answer_to(Request(TURN, (), (False, what)))
        self.stack.taken.add(what)
        try:
            yield
        finally:
            self.stack.taken.remove(what)
            for run in self.stack.runs:
                if run.waits_for_turn:
                    run.answer(None)

    def _ask(self, kind: str, tensors: tuple[Tensor | None, ...], *settings: Any) -> Any:
        """Wait for a pass; the other runs work meanwhile."""
        device = next(one.device for one in tensors if one is not None)
        numbers = (
            torch.is_autocast_enabled(device.type),
            torch.get_autocast_dtype(device.type),
        )
        learns = torch.is_grad_enabled() or kind == BACKWARD
        answer = self._answer_to(Request(kind, tensors, (learns, *numbers, *settings)))
        if kind == BACKWARD:
            self.batches += 1
        return answer

    def _answer_to(self, request: Request) -> Tensor | None:
        self.request = request
        self.stack.ready.notify()
        while not request.answered:
            self.wake.wait()
        self.request = None
        if request.error is not None:
            raise request.error
        return request.answer

    def answer(self, answer: Tensor | None, error: BaseException | None = None) -> None:
        """Give the run what it waits for."""
        assert self.request is not None
        self.request.answer, self.request.error = answer, error
        self.request.answered = True
        self.wake.notify()

    @property
    def waits(self) -> bool:
        """Whether it asked and has no answer."""
        return self.request is not None and not self.request.answered

    @property
    def waits_for_turn(self) -> bool:
        """Whether it waits for another run, and not for a pass."""
        return self.request is not None and self.waits and self.request.kind == TURN

    @property
    def place(self) -> tuple[int, int]:
        """How far it is: a run that is behind goes first, so that all ask for the same again."""
        assert self.request is not None
        return self.batches, ORDER[self.request.kind]
