"""Samplers against their papers' formulas, written down again here in k-diffusion's convention.

The toy model knows its data: normal with standard deviation 0.5, so the best guess of the clean
image is x * 0.25 / (0.25 + sigma²).
"""

from itertools import pairwise

import pytest
import torch

from lora_lab.errors import LabError
from lora_lab.sampling.samplers import SAMPLERS, image_noise, make_sampler
from tiny_model import sd15_noise_scheduler

STEPS = 25
SEEDS = [3, 4]


def denoised(x, sigma):
    """The toy model's guess of the clean image."""
    return x * 0.25 / (0.25 + sigma**2)


def noise_of(seeds):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([image_noise(g, 4, 8, 8) for g in generators]), generators


def run(name, variance_exploding):
    """Sample with our sampler; the toy model answers with the noise, as a UNet does."""
    sampler = make_sampler(name, sd15_noise_scheduler(), STEPS, SEEDS)
    noise, generators = noise_of(SEEDS)
    latents = noise * sampler.initial_scale
    sigmas = sampler.scheduler.sigmas
    for index, timestep in enumerate(sampler.timesteps):
        sigma = sigmas[index]
        scaled = sampler.model_input(latents, timestep)  # x / sqrt(1 + sigma²)
        x = latents if variance_exploding else scaled * (1 + sigma**2) ** 0.5
        noise_pred = (x - denoised(x, sigma)) / sigma
        latents = sampler.step(noise_pred, timestep, latents, generators)
    return latents, sigmas


def karras(count, low=0.0291675, high=14.614647, rho=7.0):
    """Arxiv 2206.00364, eq. 5, between the smallest and largest sigma of SD 1.5."""
    ramp = torch.linspace(0, 1, count, dtype=torch.float64)
    top, bottom = high ** (1 / rho), low ** (1 / rho)
    return torch.cat([(top + ramp * (bottom - top)) ** rho, torch.zeros(1, dtype=torch.float64)])


def test_dpm_2m_karras_is_algorithm_2_of_dpm_solver_plus_plus_on_karras_sigmas():
    result, _ = run("DPM++ 2M Karras", variance_exploding=False)
    sigmas = karras(STEPS)
    x = noise_of(SEEDS)[0].double() * sigmas[0]
    old, last = None, None
    for sigma, following in pairwise(sigmas):
        guess = denoised(x, sigma)
        if following == 0:
            x = guess
            break
        step = torch.log(sigma / following)
        used = guess
        if old is not None:
            ratio = last / step
            used = (1 + 1 / (2 * ratio)) * guess - old / (2 * ratio)
        x = following / sigma * x - torch.expm1(-step) * used
        old, last = guess, step
    torch.testing.assert_close(result.double(), x, atol=2e-4, rtol=0)


def test_euler_a_is_k_diffusions_with_one_generator_an_image():
    result, sigmas = run("Euler a", variance_exploding=True)
    noise, generators = noise_of(SEEDS)
    x = noise * sigmas[0]
    for sigma, following in pairwise(sigmas):
        up = min(following, (following**2 * (sigma**2 - following**2) / sigma**2) ** 0.5)
        down = (following**2 - up**2) ** 0.5
        x = x + (x - denoised(x, sigma)) / sigma * (down - sigma)
        fresh = torch.stack([torch.randn(4, 8, 8, generator=g) for g in generators])
        x = x + fresh * up
    torch.testing.assert_close(result, x, atol=1e-5, rtol=0)


def test_euler_is_k_diffusions():
    result, sigmas = run("Euler", variance_exploding=True)
    x = noise_of(SEEDS)[0] * sigmas[0]
    for sigma, following in pairwise(sigmas):
        x = x + (x - denoised(x, sigma)) / sigma * (following - sigma)
    torch.testing.assert_close(result, x, atol=1e-5, rtol=0)


def test_ddim_steps_where_a1111_does():
    sampler = make_sampler("DDIM", sd15_noise_scheduler(), STEPS, SEEDS)
    assert sampler.timesteps.tolist() == list(range(961, 0, -40))


@pytest.mark.parametrize("name", ["Euler a", "Euler", "DPM++ 2M Karras", "UniPC"])
def test_sampling_begins_at_the_noisiest_step(name):
    sampler = make_sampler(name, sd15_noise_scheduler(), STEPS, SEEDS)
    assert int(sampler.timesteps[0]) == 999
    assert len(sampler.timesteps) == STEPS


def test_the_models_own_spacing_is_not_taken_over():
    training = sd15_noise_scheduler()
    training.register_to_config(timestep_spacing="leading")
    sampler = make_sampler("Euler a", training, STEPS, SEEDS)
    assert sampler.scheduler.config.timestep_spacing == "linspace"


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_an_images_noise_does_not_depend_on_its_company(name):
    if "SDE" in name:
        pytest.importorskip("torchsde")
    alone = [last_latents(name, [seed])[0] for seed in SEEDS]
    together = last_latents(name, SEEDS)
    torch.testing.assert_close(torch.stack(alone), together, atol=1e-4, rtol=0)


def last_latents(name, seeds):
    sampler = make_sampler(name, sd15_noise_scheduler(), 6, seeds)
    noise, generators = noise_of(seeds)
    latents = noise * sampler.initial_scale
    for timestep in sampler.timesteps:
        noise_pred = 0.9 * sampler.model_input(latents, timestep)
        latents = sampler.step(noise_pred, timestep, latents, generators)
    return latents


def test_an_unknown_sampler_is_refused_with_the_known_ones():
    with pytest.raises(LabError, match=r"sampling\.sampler must be one of Euler a, .* got PLMS"):
        make_sampler("PLMS", sd15_noise_scheduler(), 5, SEEDS)


def ancestral(sigma, following):
    """Arxiv 2206.00364's notation for k-diffusion's ancestral step with eta 1: (down, up)."""
    up = min(following, (following**2 * (sigma**2 - following**2) / sigma**2) ** 0.5)
    return (following**2 - up**2) ** 0.5, up


@pytest.mark.parametrize("name", ["DPM++ SDE", "DPM++ SDE Karras"])
def test_dpm_sde_is_k_diffusions_with_one_brownian_tree_an_image(name):
    torchsde = pytest.importorskip("torchsde")
    sampler = make_sampler(name, sd15_noise_scheduler(), STEPS, SEEDS)
    scheduler = sampler.scheduler
    noise, generators = noise_of(SEEDS)
    latents = noise * sampler.initial_scale
    for index, timestep in enumerate(sampler.timesteps):
        sampler.model_input(latents, timestep)
        first = scheduler.state_in_first_order
        sigma = scheduler.sigmas[index] if first else scheduler.mid_point_sigma
        noise_pred = (latents - denoised(latents, sigma)) / sigma
        latents = sampler.step(noise_pred, timestep, latents, generators)

    sigmas = scheduler.sigmas[torch.tensor([0, *range(1, 2 * STEPS - 1, 2), -1])]
    low, high = sigmas[sigmas > 0].min(), sigmas.max()
    trees = [torchsde.BrownianTree(low, torch.zeros(4, 8, 8), high, entropy=seed) for seed in SEEDS]

    def fresh(above, below):
        drawn = torch.stack([tree(below, above) for tree in trees])
        return drawn / (above - below) ** 0.5

    x = noise * sigmas[0]
    for sigma, following in pairwise(sigmas):
        guess = denoised(x, sigma)
        if following == 0:
            x = guess
            break
        middle = (sigma * following) ** 0.5
        down, up = ancestral(sigma, middle)
        x2 = down / sigma * x + (1 - down / sigma) * guess - fresh(sigma, middle) * up
        down, up = ancestral(sigma, following)
        x = down / sigma * x + (1 - down / sigma) * denoised(x2, middle)
        x = x - fresh(sigma, following) * up
    torch.testing.assert_close(latents, x, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("name", "error"), [("Euler", 0.2), ("DPM++ 2M Karras", 0.02)])
def test_samplers_of_the_flow_come_near_its_exact_end(name, error):
    sampler = make_sampler(name, sd15_noise_scheduler(), STEPS, SEEDS)
    result, sigmas = run(name, variance_exploding=name == "Euler")
    start = noise_of(SEEDS)[0] * sampler.initial_scale
    if name != "Euler":
        start = start * (1 + sigmas[0] ** 2) ** 0.5
    exact = start * 0.5 / (0.25 + sigmas[0] ** 2) ** 0.5  # dx/dsigma = (x - D(x)) / sigma, solved
    assert (result - exact).abs().max() < error
