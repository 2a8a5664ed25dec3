"""The samplers that users of A1111 know, as diffusers' schedulers.

Stable Diffusion 1.5 comes with "leading" spacing; every sampler here states its own. The noise
levels and the times that the UNet is told are those of k-diffusion, which A1111 uses; UniPC and
DDIM have their authors' own. Trajectories agree with the papers' formulas (tests/test_samplers.py):
Euler a to 1e-6, DPM++ 2M Karras to 1.2e-4.

Shapes: B images, h and w the sides of the latents.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

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


def _euler_ancestral(config: dict[str, Any], seeds: Sequence[int]) -> Any:
    return EulerAncestralDiscreteScheduler.from_config(config, timestep_spacing="linspace")


def _euler(config: dict[str, Any], seeds: Sequence[int]) -> Any:
    return EulerDiscreteScheduler.from_config(config, timestep_spacing="linspace")


def _ddim(config: dict[str, Any], seeds: Sequence[int]) -> Any:
    # A1111's DDIM steps through 1, 1 + 1000 // steps, ...
    return DDIMScheduler.from_config(
        config,
        timestep_spacing="leading",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )


def _dpm_2m(config: dict[str, Any], seeds: Sequence[int], karras: bool) -> Any:
    return DPMSolverMultistepScheduler.from_config(
        config,
        algorithm_type="dpmsolver++",
        use_karras_sigmas=karras,
        timestep_spacing="linspace",
    )


def _dpm_sde(config: dict[str, Any], seeds: Sequence[int], karras: bool) -> Any:
    try:
        from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler
    except ImportError:
        raise LabError(
            "sampling.sampler=DPM++ SDE needs torchsde: pip install torchsde, or choose DPM++ 2M"
        ) from None
    return DPMSolverSDEScheduler.from_config(
        config,
        use_karras_sigmas=karras,
        timestep_spacing="linspace",
        noise_sampler_seed=list(seeds),
    )


def _unipc(config: dict[str, Any], seeds: Sequence[int]) -> Any:
    # A1111's defaults: order 3, B(h) = h, and an end at the smallest noise level instead of 0
    return UniPCMultistepScheduler.from_config(
        config,
        timestep_spacing="linspace",
        solver_order=3,
        solver_type="bh1",
        final_sigmas_type="sigma_min",
    )


SAMPLERS: dict[str, Callable[[dict[str, Any], Sequence[int]], Any]] = {
    "Euler a": _euler_ancestral,
    "Euler": _euler,
    "DDIM": _ddim,
    "DPM++ 2M": partial(_dpm_2m, karras=False),
    "DPM++ 2M Karras": partial(_dpm_2m, karras=True),
    "DPM++ SDE": partial(_dpm_sde, karras=False),
    "DPM++ SDE Karras": partial(_dpm_sde, karras=True),
    "UniPC": _unipc,
}
"""A1111's name -> scheduler from a training schedule's config and one seed an image."""


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
    config = _plain_config(noise_scheduler)
    if name.startswith("DPM++ SDE") and "rescale_betas_zero_snr" in config:
        raise LabError(
            f"sampling.sampler={name} can't begin at pure noise, which this checkpoint was trained "
            "with (zero terminal SNR): choose Euler a, DDIM or DPM++ 2M Karras"
        )
    scheduler = SAMPLERS[name](config, seeds)
    scheduler.set_timesteps(steps, device=device or torch.device("cpu"))
    _set_times(name, scheduler, steps)
    scale = float(scheduler.init_noise_sigma)
    if name.startswith("DPM++ 2M"):
        # k-diffusion starts from noise of size sigma; this scheduler works on x / sqrt(1 + sigma²).
        sigma = float(scheduler.sigmas[0])
        scale = sigma / (1 + sigma**2) ** 0.5
    return Sampler(scheduler, scale, draws_noise=name == "Euler a")


def _set_times(name: str, scheduler: Any, steps: int) -> None:
    """Give a scheduler A1111's noise levels and times where diffusers has others.

    diffusers rounds the times of the multistep solvers to whole ones, and spreads them over a step
    more than there is, so that DPM++ 2M ends at another noise level. A1111's DDIM walks from the
    end in steps of T // steps, which for some steps gives one more.

    Args:
        name: A1111's name of the sampler.
        scheduler: With its steps set.
        steps: Sampling steps.
    """
    times = scheduler.config["num_train_timesteps"]
    log_sigmas = (1.0 / scheduler.alphas_cumprod.double() - 1.0).log() / 2.0  # (T,)
    if name == "DDIM":
        walked = torch.arange(0, times, times // steps).flip(0) + 1
        wanted = walked.clamp(max=times - 1)
    elif name == "DPM++ 2M Karras":
        wanted = _interpolated(scheduler.sigmas[:-1].double().log(), log_sigmas)
    elif name == "DPM++ 2M":
        wanted = torch.linspace(times - 1, 0, steps, dtype=torch.float64)
        end = torch.zeros(1)
        scheduler.sigmas = torch.cat([_at(log_sigmas, wanted).exp().float(), end])
    elif name == "UniPC":
        grid = torch.linspace(times - 1, 0, steps + 1, dtype=torch.float64)
        scheduler.sigmas = _at(log_sigmas, grid).exp().float()
        wanted = grid[:-1]
    else:
        return
    kind = torch.int64 if name == "DDIM" else torch.float32
    scheduler.timesteps = wanted.to(scheduler.timesteps.device, kind)


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
    return steps * (2 if name.startswith("DPM++ SDE") else 1)


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
