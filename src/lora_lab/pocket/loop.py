"""One resumable, deterministic training loop for the three networks of pocket.

What a step sees is a function of the step's number alone, so a run that was killed and resumed
ends with the same weights as one that was not.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lora_lab.files import atomic_path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fit:
    """How long and how fast a network of pocket is trained."""

    steps: int
    lr: float
    warmup: int = 200
    weight_decay: float = 0.01
    ema: float = 0.0
    """Decay of the moving average of the weights; 0 keeps the last weights."""
    clip: float = 1.0
    checkpoint_every: int = 500


def learning_rate(step: int, fit: Fit) -> float:
    """Linear warm-up, then a cosine to 2 % of ``fit.lr``; ``step`` counts from 0."""
    if step < fit.warmup:
        return fit.lr * (step + 1) / fit.warmup
    share = (step - fit.warmup) / max(1, fit.steps - fit.warmup)
    return fit.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


class _Weights:
    """What a checkpoint holds: the network, its optimizer, and its averaged weights."""

    def __init__(self, network: nn.Module, fit: Fit) -> None:
        self.network, self.fit = network, fit
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, fit.lr, betas=(0.9, 0.98), weight_decay=fit.weight_decay, fused=True
        )
        self.average = [p.detach().clone() for p in self.parameters] if fit.ema else []

    def load(self, path: Path) -> int:
        """Load ``path`` and return the step that comes next."""
        state = torch.load(path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]
        return int(state["step"])

    def save(self, path: Path, step: int) -> None:
        """Write all of it to ``path``; ``step`` comes next."""
        with atomic_path(path) as temporary:
            torch.save(
                {
                    "network": self.network.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "average": self.average,
                    "step": step,
                },
                temporary,
            )

    def update(self, loss: Tensor, step: int) -> None:
        """One optimizer step down ``loss``."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.fit)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.fit.clip)
        self.optimizer.step()
        if self.average:
            decay = min(self.fit.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.average, [p.data for p in self.parameters], 1 - decay)


def fit_network(
    network: nn.Module, loss_at: Callable[[int], Tensor], fit: Fit, checkpoint: Path
) -> nn.Module:
    """Train ``network`` in place and load its averaged weights at the end.

    Args:
        network: all that is trained.
        loss_at: the loss of step ``i``; everything random in it derives from ``i``.
        fit: steps, rates, averaging.
        checkpoint: resumed from when it exists, written every ``fit.checkpoint_every`` steps.

    Returns:
        ``network`` with the final (averaged) weights, in eval mode.
    """
    weights = _Weights(network, fit)
    start = weights.load(checkpoint) if checkpoint.exists() else 0
    network.train()
    mean, began = math.nan, time.perf_counter()
    for step in range(start, fit.steps):
        loss = loss_at(step)
        weights.update(loss, step)
        mean = loss.item() if math.isnan(mean) else 0.98 * mean + 0.02 * loss.item()
        if (step + 1) % 50 == 0:
            pace = (time.perf_counter() - began) / (step + 1 - start)
            log.info("step %d/%d loss %.4f %.3f s/step", step + 1, fit.steps, mean, pace)
        if (step + 1) % fit.checkpoint_every == 0 or step + 1 == fit.steps:
            weights.save(checkpoint, step + 1)
    if weights.average:
        torch._foreach_copy_([p.data for p in weights.parameters], weights.average)
    return network.eval()
