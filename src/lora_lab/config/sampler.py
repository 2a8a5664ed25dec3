"""The samplers that users of A1111 know, one entry each: a scheduler of diffusers and its settings.

Stable Diffusion 1.5 comes with "leading" spacing; every sampler here states its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class SamplerEntry:
    """All that is particular to one sampler; settings, sampling and kohya read it here."""

    path: str
    """Module and class of the scheduler."""
    arguments: Mapping[str, object]
    """What the class is given beside the checkpoint's own noise schedule."""
    levels: str = ""
    """Function in LEVELS (sampling/samplers.py) that sets A1111's noise levels and times; empty:
    diffusers' own are the same."""
    kohya: tuple[str, ...] = ()
    """kohya's names in ``sample_sampler``, the one that is written first."""
    calls: int = 1
    """Calls of the UNet in a step, as the web UI counts them."""
    draws_noise: bool = False
    """Whether each step draws noise from the images' generators."""
    takes_seeds: bool = False
    """Whether the scheduler draws its own noise, from one seed per image."""
    unit_variance: bool = False
    """Whether the scheduler works on x / sqrt(1 + sigma²), where k-diffusion works on x."""
    pure_noise: bool = True
    """Whether it can begin at pure noise, where sigma is infinite (zero terminal SNR)."""
    install: str = "diffusers"
    """Package that the class needs."""


_DIFFUSERS = "diffusers.schedulers."
_LINSPACE: Mapping[str, object] = {"timestep_spacing": "linspace"}


def _dpm_2m(karras: bool, levels: str, kohya: tuple[str, ...] = ()) -> SamplerEntry:
    return SamplerEntry(
        f"{_DIFFUSERS}scheduling_dpmsolver_multistep.DPMSolverMultistepScheduler",
        {**_LINSPACE, "algorithm_type": "dpmsolver++", "use_karras_sigmas": karras},
        levels,
        kohya,
        unit_variance=True,
    )


def _dpm_sde(karras: bool) -> SamplerEntry:
    return SamplerEntry(
        f"{_DIFFUSERS}scheduling_dpmsolver_sde.DPMSolverSDEScheduler",
        {**_LINSPACE, "use_karras_sigmas": karras},
        calls=2,
        takes_seeds=True,
        pure_noise=False,
        install="torchsde",
    )


SAMPLERS: dict[str, SamplerEntry] = {
    "Euler a": SamplerEntry(
        f"{_DIFFUSERS}scheduling_euler_ancestral_discrete.EulerAncestralDiscreteScheduler",
        _LINSPACE,
        kohya=("euler_a", "k_euler_a"),
        draws_noise=True,
    ),
    "Euler": SamplerEntry(
        f"{_DIFFUSERS}scheduling_euler_discrete.EulerDiscreteScheduler",
        _LINSPACE,
        kohya=("euler", "k_euler"),
    ),
    "DDIM": SamplerEntry(
        f"{_DIFFUSERS}scheduling_ddim.DDIMScheduler",
        {
            "timestep_spacing": "leading",
            "steps_offset": 1,  # A1111's DDIM steps through 1, 1 + 1000 // steps, ...
            "clip_sample": False,
            "set_alpha_to_one": False,
        },
        "whole_steps",
        kohya=("ddim",),
    ),
    "DPM++ 2M": _dpm_2m(karras=False, levels="even_times"),
    "DPM++ 2M Karras": _dpm_2m(karras=True, levels="fractional_times", kohya=("dpmsolver++",)),
    "DPM++ SDE": _dpm_sde(karras=False),
    "DPM++ SDE Karras": _dpm_sde(karras=True),
    "UniPC": SamplerEntry(
        f"{_DIFFUSERS}scheduling_unipc_multistep.UniPCMultistepScheduler",
        {  # A1111's defaults: order 3, B(h) = h, an end at the smallest noise level
            **_LINSPACE,
            "solver_order": 3,
            "solver_type": "bh1",
            "final_sigmas_type": "sigma_min",
        },
        "even_times_to_the_end",
    ),
}
"""sampling.sampler -> the sampler. A new one is an entry here."""
