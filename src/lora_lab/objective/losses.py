"""The distance between prediction and target.

Shapes: B images a batch, C latent channels, h and w latent sides, T training timesteps.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A distance between prediction and target."""

    formula: Callable[..., Tensor]
    """From the error e (B, C, h, w), and the threshold c (B, 1, 1, 1) where there is one, to the
    loss of each element."""
    has_threshold: bool = False


def _pseudo_huber(error: Tensor, c: Tensor) -> Tensor:
    return 2.0 * ((error.pow(2) + c.pow(2)).sqrt() - c)


LOSSES: dict[str, Loss] = {
    "l2": Loss(lambda error: error.pow(2)),
    "l1": Loss(lambda error: error.abs()),
    "huber": Loss(lambda error, c: c * _pseudo_huber(error, c), has_threshold=True),
    "smooth_l1": Loss(_pseudo_huber, has_threshold=True),
}
"""objective.loss_type -> the loss.

``huber`` is 2c (sqrt(e² + c²) - c), which is e² for small errors; ``smooth_l1`` is
2 (sqrt(e² + c²) - c), which is 2 |e| for large ones. Source: the pseudo-Huber loss of arXiv
2403.16728, with the factors of kohya's sd-scripts.
"""


def elementwise_loss(
    prediction: Tensor, wanted: Tensor, loss_type: str, threshold: Tensor | None
) -> Tensor:
    """The loss of each element in float32, (B, C, h, w).

    Args:
        prediction: (B, C, h, w).
        wanted: (B, C, h, w).
        loss_type: One of ``LOSSES``.
        threshold: c of each image, (B,); None for a loss without one.
    """
    error, loss = prediction.float() - wanted.float(), LOSSES[loss_type]
    if not loss.has_threshold:
        return loss.formula(error)
    assert threshold is not None
    return loss.formula(error, threshold.float().view(-1, 1, 1, 1))


def huber_thresholds(
    schedule: str, huber_c: float, timesteps: Tensor, alphas_cumprod: Tensor
) -> Tensor:
    """The threshold c of the Huber losses at each image's timestep.

    ``constant``: c. ``exponential``: c^(t / T), which falls from 1 to c. ``snr``:
    (1 - c) / (1 + σ)² + c with σ = sqrt((1 - ᾱ) / ᾱ), which falls from 1 to c, too.
    Source: arXiv 2403.16728, in the form of kohya's sd-scripts.

    Args:
        schedule: ``constant``, ``exponential`` or ``snr``.
        huber_c: c.
        timesteps: Integers in [0, T), (B,).
        alphas_cumprod: ᾱ, (T,).

    Returns:
        (B,)
    """
    if schedule == "exponential":
        return (math.log(huber_c) / len(alphas_cumprod) * timesteps).exp()
    alpha_bar = alphas_cumprod[timesteps]  # (B,)
    if schedule == "snr":
        sigma = ((1.0 - alpha_bar) / alpha_bar).sqrt()
        return (1.0 - huber_c) / (1.0 + sigma).pow(2) + huber_c
    return alpha_bar.new_full(alpha_bar.shape, huber_c)


def squared_error(prediction: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error of each image in float32, (B, C, h, w) twice -> (B,)."""
    return image_means(elementwise_loss(prediction, wanted, "l2", None), None)


def image_means(losses: Tensor, masks: Tensor | None) -> Tensor:
    """The mean loss of each image, (B, C, h, w) -> (B,).

    Args:
        losses: Of each element.
        masks: How much each place counts, 0 to 1, (B, 1, h, w); None counts all alike. The sum is
            divided by the number of all places, as in kohya's sd-scripts, so a small subject has a
            small loss.
    """
    return (losses if masks is None else losses * masks).mean(dim=(1, 2, 3))
