"""Seconds a training step: ours through Lightning, against a loop in plain PyTorch.

The bare loops run in the same process, one bare step between two of ours, so that what else the
machine does hits all of them alike. They train the same modules (the same base with the same LoRA
in it, tensors flattened as ours are) on tensors of the same shapes, and do nothing else: no paired
noise, no loss weights, no schedule, no metrics, no saving.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.optim import Optimizer

from benchmarks.settings import steps_per_epoch, train_settings
from benchmarks.table import BenchmarkRow, paired
from lora_lab.checkpoint.base_model import BaseModel, encode_prompt_hidden, load_base
from lora_lab.config import TrainConfig
from lora_lab.data.loader import PairedLoader
from lora_lab.network import flatten, inject_lora
from lora_lab.optimizers import build_optimizer
from train import train

WARM_UP = 5


class BareLoop:
    """A training step with nothing around it.

    Args:
        config: Whose base, LoRA and batch size are used.
        fused_adamw: Step with AdamW in one fused pass instead of the config's optimizer.
    """

    def __init__(self, config: TrainConfig, fused_adamw: bool) -> None:
        self.base: BaseModel = load_base(config.model.checkpoint)
        self.clip_skip = config.model.clip_skip
        network = inject_lora(self.base, config.network, config.seed)
        parts = network.trainable(self.clip_skip)
        self.groups = {name: [flatten(tensors)] for name, tensors in parts.items() if tensors}
        self.optimizer: Optimizer = (
            torch.optim.AdamW([group[0] for group in self.groups.values()], fused=True)
            if fused_adamw
            else build_optimizer(self.groups, config.optimizer)
        )
        self.alphas = self.base.noise_scheduler.alphas_cumprod
        self.base.unet.train()
        self.base.text_encoder.train()

    def step(self, latents: Tensor, input_ids: Tensor) -> float:
        """One step on latents (B, C, h, w) and tokens (B, L); returns its seconds."""
        start = time.perf_counter()
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, len(self.alphas), latents.shape[:1])
        alpha = self.alphas[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        hidden = encode_prompt_hidden(self.base.text_encoder, input_ids, self.clip_skip)
        noise_pred = self.base.unet(noisy, timesteps, hidden, return_dict=False)[0]
        mse_loss(noise_pred, noise).backward()
        self.optimizer.step()
        for group in self.groups.values():
            assert group[0].grad is not None
            group[0].grad.zero_()
        return time.perf_counter() - start


def interleave(
    deliver: Callable[..., Any], loops: list[BareLoop], seconds: list[list[float]]
) -> Callable[..., Any]:
    """Wraps the loader's ``batch`` so that each call first takes one step of every bare loop.

    Between two calls lies one whole step of ours, Lightning and callbacks included: that time goes
    into ``seconds[0]``, those of the bare loops into the lists behind it.
    """
    resumed: list[float] = []

    def batch(*arguments: Any) -> Any:
        if resumed:
            seconds[0].append(time.perf_counter() - resumed.pop())
        shapes = deliver(*arguments)
        for loop, taken in zip(loops, seconds[1:], strict=True):
            taken.append(loop.step(shapes["latents"], shapes["input_ids"]))
        resumed.append(time.perf_counter())
        return deliver(*arguments)

    return batch


def measure(overrides: list[str], steps: int) -> list[BenchmarkRow]:
    """Trains for a while, bare steps in between; the two rows of the comparison.

    Args:
        overrides: As for train.py.
        steps: About how many steps are taken; whole epochs are run.
    """
    quiet = ["callbacks.progress=false", "save_every=1.0"]
    config = train_settings([*quiet, *overrides])
    loops = [BareLoop(config, fused_adamw=False), BareLoop(config, fused_adamw=True)]
    seconds: list[list[float]] = [[], [], []]
    with tempfile.TemporaryDirectory() as folder:
        config.epochs = 1 + steps // steps_per_epoch(config)
        batch = interleave(PairedLoader.batch, loops, seconds)
        with patch.object(PairedLoader, "batch", lambda *arguments: batch(*arguments)):
            train(config, Path(folder))
    count = len(seconds[0])
    ours, same, floor = (taken[WARM_UP:count] for taken in seconds)
    return [
        paired(f"training step, {config.optimizer.name} ({count} steps)", ours, same, "s/step"),
        paired("training step, bare with fused AdamW", ours, floor, "s/step"),
    ]
