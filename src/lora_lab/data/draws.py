"""All that the objective draws for one showing of an image.

Each draw has a generator of its own from (seed, image, step, occurrence). Turning one on, or asking
for another size of it, never changes another draw.

Shapes: B images a batch, C latent channels, h and w latent sides, L levels.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lora_lab.config import ObjectiveConfig
from lora_lab.errors import ConfigError
from lora_lab.objective import draw_timestep, pyramid_levels, stratified
from lora_lab.randomness import derive_seed, generator


@dataclass(frozen=True)
class Showing:
    """What the draws of one showing depend on."""

    seed: int
    key: str
    """The image's key."""
    step: int
    occurrence: int
    """How often the same step has shown the image before."""
    stratum: int
    """Which part of the timesteps is the showing's, when they are stratified."""
    strata: int
    """How many images the step has."""

    def generator(self, name: str) -> torch.Generator:
        """The generator of one draw."""
        return generator(self.seed, name, self.key, self.step, self.occurrence)

    def integer(self, name: str) -> int:
        """A uniform draw in [0, 2^63)."""
        return derive_seed(self.seed, name, self.key, self.step, self.occurrence)


@dataclass(frozen=True)
class Draws:
    """Random numbers for one view of an image; None where a setting is off."""

    noise: Tensor
    """(C, h, w)"""
    offset: Tensor
    """(C, 1, 1)"""
    strength: float
    """Uniform in [0, 1), the size of a random noise offset."""
    levels: Tensor | None
    """(L, C, h, w)"""
    perturbation: Tensor | None
    """(C, h, w)"""
    timestep: int


def draw(showing: Showing, shape: torch.Size, config: ObjectiveConfig, timesteps: int) -> Draws:
    """Draw all that the objective needs.

    Args:
        showing: Of which image, in which step.
        shape: (C, h, w) of its latents.
        config: What is on.
        timesteps: T, the timesteps of the noise schedule.
    """
    levels = config.multires_noise_iterations
    size = (shape[0], shape[1], shape[2])
    return Draws(
        noise=torch.randn(shape, generator=showing.generator("noise")),
        offset=torch.randn((shape[0], 1, 1), generator=showing.generator("noise_offset")),
        strength=showing.integer("noise_offset_strength") / 2**63,
        levels=pyramid_levels(size, levels, showing.generator("multires")) if levels else None,
        perturbation=(
            torch.randn(shape, generator=showing.generator("ip_noise"))
            if config.ip_noise_gamma > 0
            else None
        ),
        timestep=_timestep(showing, config, timesteps),
    )


def _timestep(showing: Showing, config: ObjectiveConfig, timesteps: int) -> int:
    high = timesteps if config.max_timestep is None else config.max_timestep
    shape = (config.timestep_sampling, config.min_timestep, high)
    logit = (config.logit_mean, config.logit_std)
    uniform = showing.integer("timestep")
    if config.timestep_stratified:
        return stratified(uniform, showing.stratum, showing.strata, *shape, *logit)
    return draw_timestep(uniform, *shape, *logit)


def check_timesteps(config: ObjectiveConfig, timesteps: int) -> None:
    """Holds the range of the timesteps against the checkpoint's noise schedule.

    Raises:
        ConfigError: It reaches beyond the schedule.
    """
    for key, value, last in (
        ("min_timestep", config.min_timestep, timesteps - 1),
        ("max_timestep", config.max_timestep, timesteps),
    ):
        if value is not None and value > last:
            raise ConfigError(
                f"objective.{key} must be at most {last} with this checkpoint, whose noise "
                f"schedule has {timesteps} timesteps, got {value}"
            )
