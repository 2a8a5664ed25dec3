"""One resumable, deterministic training loop for the networks of pocket.

What a step sees is a function of the step's number alone, so a run that was killed and resumed
ends with the same weights as one that was not.
"""

import csv
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_lab.errors import LabError
from lora_lab.files import atomic_path

log = logging.getLogger(__name__)

REPORT_EVERY = 50
"""Steps between two lines of the log and of the curve."""


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
    muon: bool = False
    """Whether Muon (Jordan et al. 2024) moves the weight matrices and kernels, AdamW the rest."""
    bfloat16: bool = False
    """Whether the loss is computed under autocast to bfloat16; weights stay in 32 bits."""


def learning_rate(step: int, fit: Fit) -> float:
    """Linear warm-up, then a cosine to 2 % of ``fit.lr``; ``step`` counts from 0."""
    if step < fit.warmup:
        return fit.lr * (step + 1) / fit.warmup
    share = (step - fit.warmup) / max(1, fit.steps - fit.warmup)
    return fit.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


MIN_MATRIX = 16
"""Weights with fewer rows or columns are no matrices to Muon: vectors, a first or last layer."""


class _Muon:
    """PyTorch's Muon for kernels of any number of dimensions: it steps on views of two."""

    def __init__(self, kernels: list[nn.Parameter], fit: Fit) -> None:
        self.kernels = kernels
        # A view, or an error: steps on a copy would train nothing.
        self.views = [nn.Parameter(p.data.view(len(p), -1)) for p in kernels]
        # Steps as large as AdamW's, so that one learning rate serves both (arXiv 2502.16982).
        self.optimizer = torch.optim.Muon(
            self.views, fit.lr, weight_decay=fit.weight_decay, adjust_lr_fn="match_rms_adamw"
        )

    def step(self) -> None:
        """One step with the kernels' gradients."""
        for kernel, view in zip(self.kernels, self.views, strict=True):
            view.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        self.optimizer.step()


class _Weights:
    """What a checkpoint holds: the network, its optimizers, and its averaged weights."""

    def __init__(self, network: nn.Module, fit: Fit) -> None:
        self.network, self.fit = network, fit
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        kernels = [
            p
            for p in self.parameters
            if fit.muon and p.ndim > 1 and min(p.flatten(1).shape) >= MIN_MATRIX
        ]
        known = {id(p) for p in kernels}
        self.adamw = torch.optim.AdamW(
            [p for p in self.parameters if id(p) not in known],
            fit.lr,
            betas=(0.9, 0.98),
            weight_decay=fit.weight_decay,
            fused=True,
        )
        self.muon = _Muon(kernels, fit) if kernels else None
        self.average = [p.detach().clone() for p in self.parameters] if fit.ema else []

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """AdamW, and Muon where there is one."""
        return [self.adamw, *([self.muon.optimizer] if self.muon else [])]

    def load(self, path: Path) -> int:
        """Load ``path`` and return the step that comes next.

        Raises:
            LabError: it was trained with other settings.
        """
        device = self.parameters[0].device
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location=device)
        if state["fit"] != asdict(self.fit):
            raise LabError(
                f"{path} was trained with other settings than now ({state['fit']}): "
                "remove it, or choose another --work folder"
            )
        self.network.load_state_dict(state["network"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.average = state["average"]
        return int(state["step"])

    def save(self, path: Path, step: int) -> None:
        """Write all of it to ``path``; ``step`` comes next."""
        with atomic_path(path) as temporary:
            torch.save(
                {
                    "network": self.network.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                    "average": self.average,
                    "step": step,
                    "fit": asdict(self.fit),
                },
                temporary,
            )

    def update(self, loss: Tensor, step: int) -> None:
        """One optimizer step down ``loss``."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, self.fit)
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.fit.clip)
        self.adamw.step()
        if self.muon:
            self.muon.step()
        if self.average:
            decay = min(self.fit.ema, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.average, [p.data for p in self.parameters], 1 - decay)


def fit_network(
    network: nn.Module, loss_at: Callable[[int], Tensor], fit: Fit, checkpoint: Path
) -> nn.Module:
    """Train ``network`` in place and load its averaged weights at the end.

    The mean loss of every ``REPORT_EVERY`` steps goes to a CSV file beside the checkpoint.

    Args:
        network: all that is trained, on its device.
        loss_at: the loss of step ``i``; everything random in it derives from ``i``.
        fit: steps, rates, averaging.
        checkpoint: resumed from when it exists, written every ``fit.checkpoint_every`` steps.

    Returns:
        ``network`` with the final (averaged) weights, in eval mode.
    """
    weights = _Weights(network, fit)
    start = weights.load(checkpoint) if checkpoint.exists() else 0
    network.train()
    losses: list[Tensor] = []
    began = time.perf_counter()
    device = weights.parameters[0].device.type
    for step in range(start, fit.steps):
        with torch.autocast(device, torch.bfloat16, enabled=fit.bfloat16):
            loss = loss_at(step)
        weights.update(loss, step)
        losses.append(loss.detach())
        if (step + 1) % REPORT_EVERY == 0:
            _report(checkpoint, step + 1, fit, torch.stack(losses).mean().item(), began)
            losses, began = [], time.perf_counter()
        if (step + 1) % fit.checkpoint_every == 0 or step + 1 == fit.steps:
            weights.save(checkpoint, step + 1)
    if weights.average:
        torch._foreach_copy_([p.data for p in weights.parameters], weights.average)
    return network.eval()


def _report(checkpoint: Path, step: int, fit: Fit, loss: float, began: float) -> None:
    """Log a mean loss and add it to the curve; after a resume, steps may stand there twice."""
    pace = (time.perf_counter() - began) / REPORT_EVERY
    log.info("%s: step %d/%d loss %.5f %.3f s/step", checkpoint.stem, step, fit.steps, loss, pace)
    with checkpoint.with_suffix(".csv").open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow([step, f"{loss:.6f}", f"{pace:.4f}"])
