"""The samplers that users of A1111 know, as diffusers' schedulers (config/sampler.py lists them).

The noise levels and the times that the UNet is told are A1111's: those of k-diffusion, or the
authors' own where A1111 took their code. Trajectories agree with the papers' formulas
(tests/test_samplers.py): Euler a to 1e-6, DPM++ 2M Karras to 1.2e-4.

Shapes: B images, h and w the sides of the latents, T training timesteps.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from lora_lab.config.sampler import SAMPLERS, SamplerEntry
from lora_lab.errors import LabError


@dataclass
class Sampler:
    """A scheduler with its steps set, ready for one batch of images."""

    scheduler: Any
    initial_scale: float
    """What standard normal noise is multiplied by to start from."""
    draws_noise: bool
    """Whether each step draws noise from the images' generators."""

    @property
    def timesteps(self) -> Tensor:
        """(calls of the UNet,), from noisy to clean."""
        return self.scheduler.timesteps

    def model_input(self, latents: Tensor, timestep: Tensor) -> Tensor:
        """The latents as the UNet takes them, (B, 4, h, w)."""
        return self.scheduler.scale_model_input(latents, timestep)

    def step(
        self,
        noise_pred: Tensor,
        timestep: Tensor,
        latents: Tensor,
        generators: Sequence[torch.Generator],
    ) -> Tensor:
        """The latents after one step, (B, 4, h, w)."""
        noise = {"generator": list(generators)} if self.draws_noise else {}
        return self.scheduler.step(noise_pred, timestep, latents, return_dict=False, **noise)[0]


def make_sampler(
    name: str,
    noise_scheduler: DDPMScheduler,
    steps: int,
    seeds: Sequence[int],
    device: torch.device | None = None,
) -> Sampler:
    """Make a sampler for one batch of images.

    Args:
        name: A1111's name of it.
        noise_scheduler: The schedule that the base was trained with.
        steps: Sampling steps.
        seeds: One an image; only DPM++ SDE uses them.
        device: Where the latents are; None is the CPU.

    Raises:
        LabError: The name is unknown, or the sampler needs a package that is missing.
    """
    if name not in SAMPLERS:
        raise LabError(f"sampling.sampler must be one of {', '.join(SAMPLERS)}, got {name}")
    entry, config = SAMPLERS[name], _plain_config(noise_scheduler)
    if not entry.pure_noise and "rescale_betas_zero_snr" in config:
        raise LabError(
            f"sampling.sampler={name} can't begin at pure noise, which this checkpoint was trained "
            "with (zero terminal SNR): choose Euler a, DDIM or DPM++ 2M Karras"
        )
    given = dict(entry.arguments)
    if entry.takes_seeds:
        given["noise_sampler_seed"] = list(seeds)
    scheduler = _find_class(name, entry).from_config(config, **given)
    scheduler.set_timesteps(steps, device=device or torch.device("cpu"))
    if entry.levels:
        LEVELS[entry.levels](scheduler, steps)
    scale = float(scheduler.init_noise_sigma)
    if entry.unit_variance:
        # k-diffusion starts from noise of size sigma.
        sigma = float(scheduler.sigmas[0])
        scale = sigma / (1 + sigma**2) ** 0.5
    return Sampler(scheduler, scale, entry.draws_noise)


def _find_class(name: str, entry: SamplerEntry) -> Any:
    module, _, kind = entry.path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), kind)
    except ImportError:
        raise LabError(
            f"sampling.sampler={name} needs {entry.install}: pip install {entry.install}, or "
            "choose DPM++ 2M"
        ) from None


def _whole_steps(scheduler: Any, steps: int) -> None:
    """A1111's DDIM walks from the end in steps of T // steps, which may give one too many."""
    times = scheduler.config["num_train_timesteps"]
    walked = torch.arange(0, times, times // steps).flip(0) + 1
    _set_times(scheduler, walked.clamp(max=times - 1))


def _fractional_times(scheduler: Any, steps: int) -> None:
    """The times of the scheduler's own noise levels, which diffusers rounds to whole ones."""
    levels = scheduler.sigmas[:-1].double().log()
    _set_times(scheduler, _interpolated(levels, _log_sigmas(scheduler)).float())


def _even_times(scheduler: Any, steps: int) -> None:
    """Times from the last one to 0; diffusers spreads them over a step more than there is."""
    last = scheduler.config["num_train_timesteps"] - 1
    wanted = torch.linspace(last, 0, steps, dtype=torch.float64)
    sigmas = _at(_log_sigmas(scheduler), wanted).exp().float()
    scheduler.sigmas = torch.cat([sigmas, torch.zeros(1)])
    _set_times(scheduler, wanted.float())


def _even_times_to_the_end(scheduler: Any, steps: int) -> None:
    """The same in one part more: the last step ends at the noise level of time 0, not at 0."""
    last = scheduler.config["num_train_timesteps"] - 1
    grid = torch.linspace(last, 0, steps + 1, dtype=torch.float64)
    scheduler.sigmas = _at(_log_sigmas(scheduler), grid).exp().float()
    _set_times(scheduler, grid[:-1].float())


LEVELS: dict[str, Callable[[Any, int], None]] = {
    "whole_steps": _whole_steps,
    "fractional_times": _fractional_times,
    "even_times": _even_times,
    "even_times_to_the_end": _even_times_to_the_end,
}
"""What gives a scheduler with its steps set A1111's noise levels and times."""


def _set_times(scheduler: Any, times: Tensor) -> None:
    scheduler.timesteps = times.to(scheduler.timesteps.device)


def _log_sigmas(scheduler: Any) -> Tensor:
    """The logarithm of each training timestep's noise level, rising, (T,)."""
    return (1.0 / scheduler.alphas_cumprod.double() - 1.0).log() / 2.0


def _at(values: Tensor, places: Tensor) -> Tensor:
    """Values at fractional places, by straight lines between whole ones."""
    low = places.floor().long()
    high = places.ceil().long()
    return values[low] + (places - low) * (values[high] - values[low])


def _interpolated(wanted: Tensor, rising: Tensor) -> Tensor:
    """The fractional places at which rising values, joined by straight lines, are the wanted."""
    low = (torch.searchsorted(rising, wanted) - 1).clamp(0, len(rising) - 2)
    share = (wanted - rising[low]) / (rising[low + 1] - rising[low])
    return low + share.clamp(0, 1)


def unet_calls(name: str, steps: int) -> int:
    """Calls of the UNet that the web UI counts for some steps: DPM++ SDE makes two a step."""
    return steps * SAMPLERS[name].calls


def _plain_config(noise_scheduler: DDPMScheduler) -> dict[str, Any]:
    """The betas and the prediction type: what belongs to the model and not to a sampler."""
    names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type")
    config = {name: noise_scheduler.config[name] for name in names}
    if noise_scheduler.config["rescale_betas_zero_snr"]:
        config["rescale_betas_zero_snr"] = True
    return {**config, "trained_betas": noise_scheduler.config["trained_betas"]}


def image_noise(generator: torch.Generator, channels: int, height: int, width: int) -> Tensor:
    """The noise that an image starts from, fp32, (channels, h, w); A1111's with RNG: CPU."""
    return torch.randn((channels, height, width), generator=generator)
