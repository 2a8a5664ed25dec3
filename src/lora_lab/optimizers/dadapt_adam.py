"""DAdaptAdam with d on the device, a piece of each tensor at a time.

The package reads two sums of each tensor on the host in every step, so a GPU has to wait, and it
goes over each tensor some fifteen times, which is slow where it is larger than the CPU's cache.
Here are the same steps (arXiv 2301.07733, algorithm 5), but d and the sums stay where the tensors
are, in 64 bits, and all that a step does to a piece is done while the piece is in the cache.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

PIECE = 2**18
"""Numbers of a tensor that are worked on at a time on a CPU: 5 MB with state and gradient."""
STATE = ("exp_avg", "exp_avg_sq", "s")


def on_device(package: type[Optimizer]) -> type[Optimizer]:
    """The package's DAdaptAdam with the step of this module; its package is imported elsewhere."""
    return type("DAdaptAdamOnDevice", (StepOnDevice, package), {})


class StepOnDevice(Optimizer):
    """A ``step`` that the host never waits for, in place of the package's.

    After the first step ``d`` and ``numerator_weighted`` of each group are tensors of one number.
    A step in which all gradients are 0, like those of all steps before, counts; the package leaves
    it out.
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step.

        Args:
            closure: Computes the gradients.

        Returns:
            What the closure returned.

        Raises:
            RuntimeError: The groups' learning rates differ.
        """
        loss = None if closure is None else closure()
        rates = {group["lr"] for group in self.param_groups}
        if len(rates) > 1:
            raise RuntimeError(f"DAdaptAdam has one lr for all groups, got {sorted(rates)}")
        if rates != {0.0}:
            with torch.no_grad():
                self._adapt()
        return loss

    def _adapt(self) -> None:
        """Move the weights by d · lr, and find the next d."""
        first = self.param_groups[0]
        beta1, beta2 = first["betas"]
        root = beta2**0.5
        lr, k = first["lr"], first["k"]
        if first["use_bias_correction"]:
            lr *= (1 - beta2 ** (k + 1)) ** 0.5 / (1 - beta1 ** (k + 1))
        tensors = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not tensors:
            return
        d, numerator = (_scalar(first[key], tensors[0]) for key in ("d", "numerator_weighted"))
        dlr = d * lr
        sums = d.new_zeros(2)  # the numerator's dot products, and the norm of s
        for group in self.param_groups:
            steps = _Steps(group, dlr, root)
            for piece in self._pieces(group):
                sums = sums + steps.take(*piece) * group["layer_scale"]
        dots, norm = sums.unbind()
        numerator = root * numerator + (1 - root) * dlr * dots
        d_hat = torch.where(norm > 0, numerator / ((1 - root) * norm), d)
        d = torch.maximum(d, torch.minimum(d_hat, d * first["growth_rate"]))
        for group in self.param_groups:
            group["d"], group["numerator_weighted"] = d, numerator
            group["k"] = k + 1

    def _pieces(self, group: dict[str, Any]) -> Iterator[tuple[Tensor, ...]]:
        """Weights, gradient and state of each piece of a group's tensors."""
        for p in group["params"]:
            if p.grad is None:
                continue
            state = self.state[p]
            if not state:
                state.update({name: torch.zeros_like(p) for name in STATE})
            kept = [state[name].view(-1) for name in STATE]
            whole = [p.detach().view(-1), p.grad.reshape(-1), *kept]
            size = PIECE if p.device.type == "cpu" else max(1, p.numel())
            yield from zip(*(one.split(size) for one in whole), strict=True)


class _Steps:
    """The steps of a group's pieces, with what they share."""

    def __init__(self, group: dict[str, Any], dlr: Tensor, root: float) -> None:
        (self.beta1, self.beta2), self.root = group["betas"], root
        self.eps, self.decay, self.decouple = group["eps"], group["weight_decay"], group["decouple"]
        kind = group["params"][0].dtype
        self.pull = (dlr * (group["layer_scale"] * (1 - self.beta1))).to(kind)
        self.share = (dlr * (1 - root)).to(kind)
        self.shrink = (dlr * -self.decay).to(kind) if self.decay and self.decouple else None

    def take(
        self, p: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, s: Tensor
    ) -> Tensor:
        """Move a piece; its parts of the dot product and of the norm of s, (2,)."""
        if self.decay and not self.decouple:
            grad.add_(p, alpha=self.decay)
        denom = exp_avg_sq.sqrt().add_(self.eps)
        dot = torch.dot(grad, s.div(denom))
        exp_avg.mul_(self.beta1).addcmul_(grad, self.pull)
        exp_avg_sq.mul_(self.beta2).addcmul_(grad, grad, value=1 - self.beta2)
        s.mul_(self.root).addcmul_(grad, self.share)
        norm = s.abs().sum()
        if self.shrink is not None:
            p.addcmul_(p, self.shrink)
        p.addcdiv_(exp_avg, torch.sqrt(exp_avg_sq, out=denom).add_(self.eps), value=-1)
        return torch.stack((dot, norm))


def _scalar(value: float | Tensor, like: Tensor) -> Tensor:
    """One number on a tensor's device, in 64 bits where the device has them."""
    wide = torch.float32 if like.device.type == "mps" else torch.float64
    return torch.as_tensor(value, dtype=wide, device=like.device)
