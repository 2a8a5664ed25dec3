"""The random numbers that the objective needs for one training sample.

A training sample is an image in a step: it occurs as often as its repeats say. Each random number
has a generator of its own from (seed, image, step, occurrence). Turning one on, or asking for
another size of it, never changes another.

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
class NoiseSeed:
    """What the random numbers of one training sample depend on."""

    seed: int
    key: str
    """The image's key."""
    step: int
    occurrence: int
    """How often the image occurred earlier in the same step."""
    stratum: int
    """Which part of the timesteps is the sample's, when they are stratified."""
    strata: int
    """How many images the step has."""

    def generator(self, name: str) -> torch.Generator:
        """The generator of one tensor."""
        return generator(self.seed, name, self.key, self.step, self.occurrence)

    def integer(self, name: str) -> int:
        """A uniform integer in [0, 2^63)."""
        return derive_seed(self.seed, name, self.key, self.step, self.occurrence)


@dataclass(frozen=True)
class NoiseInputs:
    """The random numbers of one training sample; None where a setting is off."""

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


def sample_noise(
    seed: NoiseSeed, shape: torch.Size, config: ObjectiveConfig, timesteps: int
) -> NoiseInputs:
    """All that the objective needs for one training sample.

    Args:
        seed: Of which image, in which step.
        shape: (C, h, w) of its latents.
        config: What is on.
        timesteps: T, the timesteps of the noise schedule.
    """
    levels = config.multires_noise_iterations
    size = (shape[0], shape[1], shape[2])
    return NoiseInputs(
        noise=torch.randn(shape, generator=seed.generator("noise")),
        offset=torch.randn((shape[0], 1, 1), generator=seed.generator("noise_offset")),
        strength=seed.integer("noise_offset_strength") / 2**63,
        levels=pyramid_levels(size, levels, seed.generator("multires")) if levels else None,
        perturbation=(
            torch.randn(shape, generator=seed.generator("ip_noise"))
            if config.ip_noise_gamma > 0
            else None
        ),
        timestep=_timestep(seed, config, timesteps),
    )


def _timestep(seed: NoiseSeed, config: ObjectiveConfig, timesteps: int) -> int:
    high = timesteps if config.max_timestep is None else config.max_timestep
    shape = (config.timestep_sampling, config.min_timestep, high)
    logit = (config.logit_mean, config.logit_std)
    uniform = seed.integer("timestep")
    if config.timestep_stratified:
        return stratified(uniform, seed.stratum, seed.strata, *shape, *logit)
    return draw_timestep(uniform, *shape, *logit)


def check_timesteps(config: ObjectiveConfig, timesteps: int) -> None:
    """Hold the range of the timesteps against the checkpoint's noise schedule.

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
