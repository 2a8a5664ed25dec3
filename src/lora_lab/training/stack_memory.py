"""How many runs there is memory for at once, told from one pass of one of them."""

from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor

from lora_lab.clock import Clock
from lora_lab.config import TrainConfig
from lora_lab.data.inputs import Inputs, SharedInputs
from lora_lab.data.tokens import caption_tokens
from lora_lab.errors import LabError
from lora_lab.network import inject_lora
from lora_lab.network.stacked import LoRAStack, Member
from lora_lab.text.caption_encoder import encode_captions
from lora_lab.training.callbacks.cost import peak_memory, reset_peak_memory

USABLE = 0.8
"""Share of the free memory that runs may take: files that are read need some, too."""
OPTIMIZER = 4
"""Tensors as large as the LoRA that an optimizer keeps at most (D-Adaptation's Adam: three), and
the stack's own copy."""


@dataclass(frozen=True)
class StackMemory:
    """What a stack needs, in bytes."""

    before: int
    """Base model, libraries and latents: what is there before the runs."""
    a_run: int
    """LoRA, gradients, optimizer and activations of a run."""
    free: int
    """What is free for this process beyond `before`."""

    @property
    def most(self) -> int:
        """How many runs fit."""
        return max(1, int(USABLE * self.free) // self.a_run)

    def of(self, runs: int) -> int:
        """Bytes of the process, or of the GPU, with so many runs."""
        return self.before + runs * self.a_run

    def largest(self, asked: int | None, waiting: int, default: int) -> int:
        """How many of the waiting runs are trained at once.

        Args:
            asked: What the settings say; None leaves it to the memory.
            waiting: How many there are.
            default: At most, where nothing is asked for.

        Raises:
            LabError: What is asked for is more than fits.
        """
        if asked is None:
            return min(waiting, default, self.most)
        size = min(asked, waiting)
        if size > self.most:
            raise LabError(
                f"hydra.launcher.stack={asked}: {size} runs at once need about "
                f"{self.of(size) / 1e9:.1f} GB, but the {self.free / 1e9:.1f} GB that are free "
                f"have room for {self.most}: set hydra.launcher.stack={self.most}"
            )
        return size


def measure_memory(configs: list[TrainConfig], shared: SharedInputs, workers: int) -> StackMemory:
    """Make one pass of the run with the most numbers to train, and nothing else of a training.

    Args:
        configs: Settings of the runs, which share a base and the shapes of their batches.
        shared: Keeps what is loaded for the runs themselves.
        workers: How many processes share the memory.

    Raises:
        LabError: The inputs can't be read.
    """
    config = max(configs, key=lambda one: (one.network.train_text_encoder, one.network.dim))
    inputs = Inputs.load(config, shared, Clock())
    base = inputs.base
    device = _device(config)
    for part in (base.unet, base.text_encoder):
        part.to(device)
        part.train()
    stack = LoRAStack(base)
    with inject_lora(base, config.network, config.seed, stacked=True) as network:
        network.beside.to(device)
        trained = network.trainable(config.model.clip_skip)
        stack.add(Member(network, config.model.clip_skip, lambda: trained))
        before = _used(device)
        reset_peak_memory()
        try:
            _pass(stack, inputs, config, device)
            peak = _peak(device)
        finally:
            stack.remove()
        numbers = sum(one.numel() for tensors in trained.values() for one in tensors)
    a_run = max(1, peak - before) + OPTIMIZER * 4 * numbers
    return StackMemory(before, a_run, _free(device) // workers)


def _pass(stack: LoRAStack, inputs: Inputs, config: TrainConfig, device: torch.device) -> None:
    """Forward and backward of one batch of the largest images."""
    base = inputs.base
    largest = max(inputs.items, key=lambda item: item.latents[0].numel())
    latents = torch.stack([largest.latents] * config.data.batch_size).to(device)
    tokens = caption_tokens(base.tokenizer, largest.example.caption.text, config.data)
    ids = torch.stack([tokens.input_ids] * len(latents)).to(device)
    weights: Tensor | None = None
    if tokens.weights is not None:
        weights = torch.stack([tokens.weights] * len(latents)).to(device)
    mixed = config.trainer.precision.startswith("bf16")
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        with stack.runs("text_encoder", [0]):
            hidden = encode_captions(base.text_encoder, ids, weights, config.model.clip_skip)
        with stack.runs("unet", [0]):
            steps = torch.zeros(len(latents), dtype=torch.int64, device=device)
            noise_pred: Any = base.unet(latents, steps, hidden, return_dict=False)[0]
    noise_pred.float().mean().backward()


def _device(config: TrainConfig) -> torch.device:
    gpu = config.trainer.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if gpu else "cpu")


def _used(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated()
    return int(psutil.Process().memory_info().rss)


def _peak(device: torch.device) -> int:
    peak = peak_memory()
    return int(peak["device" if device.type == "cuda" else "process"] or 0)


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)
