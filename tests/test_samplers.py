"""Samplers against their papers' formulas, written down again here in k-diffusion's convention.

The toy model knows its data: normal with standard deviation 0.5, so the best guess of the clean
image is x * 0.25 / (0.25 + sigma²).
"""

from itertools import pairwise

import numpy as np
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


@pytest.mark.parametrize("name", ["DPM++ 2M", "DPM++ 2M Karras"])
def test_dpm_2m_is_algorithm_2_of_dpm_solver_plus_plus(name):
    result, _ = run(name, variance_exploding=False)
    plain = by_time(np.linspace(999, 0, STEPS))
    sigmas = karras(STEPS) if "Karras" in name else torch.tensor(np.append(plain, 0.0))
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


def training_sigmas():
    """Stable Diffusion 1.5's noise levels by time: scaled-linear betas, from their definition."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = torch.cumprod(1 - betas, 0)
    return ((1 - kept) / kept).sqrt()


def by_time(times):
    """k-diffusion's t_to_sigma: the logarithm is interpolated."""
    return np.exp(np.interp(times, np.arange(1000), training_sigmas().log()))


def times_of(sigmas):
    """k-diffusion's sigma_to_t, not quantized."""
    return np.interp(np.log(sigmas), training_sigmas().log(), np.arange(1000))


@pytest.mark.parametrize("steps", [8, 20, 25])
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_noise_levels_and_times_are_those_of_a1111(name, steps):
    """By k-diffusion's formulas; UniPC's and DDIM's by their authors', which A1111 kept."""
    if "SDE" in name:
        pytest.importorskip("torchsde")
    sampler = make_sampler(name, sd15_noise_scheduler(), steps, SEEDS)
    if name == "DDIM":
        assert sampler.timesteps.tolist() == [1 + i * (1000 // steps) for i in range(steps)][::-1]
        return
    if name == "UniPC":  # one point more, and the end at the smallest level
        times = np.linspace(999, 0, steps + 1)
        sigmas = by_time(times)
        times = times[:-1]
    elif "Karras" in name:
        sigmas = karras(steps).numpy()
        times = times_of(sigmas[:-1])
    else:
        times = np.linspace(999, 0, steps)
        sigmas = np.append(by_time(times), 0.0)
    found, asked = sampler.scheduler.sigmas.numpy(), sampler.timesteps.numpy()
    if "SDE" in name:  # there each step has a point in its middle
        middle = np.sqrt(sigmas[:-2] * sigmas[1:-1])
        np.testing.assert_allclose(asked[1::2], times_of(middle), atol=2e-3)
        found, asked = found[[0, *range(1, 2 * steps - 1, 2), -1]], asked[::2]
    # diffusers interpolates sigma itself for Euler and SDE: up to 2.4e-5 apart
    np.testing.assert_allclose(found, sigmas, rtol=5e-5, atol=1e-7)
    np.testing.assert_allclose(asked, times, atol=2e-3)


def test_ddim_makes_one_more_step_where_a_thousand_does_not_divide():
    sampler = make_sampler("DDIM", sd15_noise_scheduler(), 30, SEEDS)
    assert sampler.timesteps.tolist() == list(range(991, 0, -33))


def test_ddim_is_the_papers_without_noise():
    """arXiv 2010.02502, eq. 12 with σ = 0; the last step goes to time 0."""
    sampler = make_sampler("DDIM", sd15_noise_scheduler(), STEPS, SEEDS)
    kept = 1 / (1 + training_sigmas() ** 2)
    latents = noise_of(SEEDS)[0]
    x = latents.double()
    times = [*sampler.timesteps.tolist(), 0]
    for timestep, following in pairwise(times):
        a, b = kept[timestep], kept[following]
        sigma = ((1 - a) / a).sqrt()

        def noise_in(values, sigma=sigma, a=a):
            """Of values at this step's level, which the toy model takes as x / sqrt(ᾱ)."""
            return (values / a.sqrt() - denoised(values / a.sqrt(), sigma)) / sigma

        predicted = noise_in(latents).float()
        latents = sampler.step(predicted, torch.tensor(timestep), latents, [])
        guess = (x - (1 - a).sqrt() * noise_in(x)) / a.sqrt()
        x = b.sqrt() * guess + (1 - b).sqrt() * noise_in(x)
    torch.testing.assert_close(latents.double(), x, atol=1e-5, rtol=0)


def integral(points, values, start, end, alpha):
    """α ∫ e^(λ - end) P(λ) dλ with P through the points: what UniPC's coefficients stand for."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    places = start + (nodes + 1) / 2 * (end - start)
    total = torch.zeros_like(values[0])
    for point, value in zip(points, values, strict=True):
        others = [other for other in points if other != point]
        basis = np.prod([(places - other) / (point - other) for other in others], axis=0)
        share = np.sum(weights * np.exp(places - end) * basis) * (end - start) / 2
        total = total + alpha * share * value
    return total


@pytest.mark.parametrize("steps", [8, 25])
def test_unipc_integrates_the_polynomial_through_its_guesses(steps):
    """arXiv 2302.04867 of order 3 with B(h) = h, the corrector on all but the last step.

    Where the paper solves for all coefficients the result is the exact integral of an interpolation
    in λ = log(α / σ), taken here by quadrature; of two points it has half a difference instead.
    """
    sampler = make_sampler("UniPC", sd15_noise_scheduler(), steps, SEEDS)
    latents = noise_of(SEEDS)[0]
    ours, start = latents, latents.double()
    for index, timestep in enumerate(sampler.timesteps):
        sigma = sampler.scheduler.sigmas[index]
        scaled = ours * (1 + sigma**2) ** 0.5
        ours = sampler.step((scaled - denoised(scaled, sigma)) / sigma, timestep, ours, [])

    sigmas = by_time(np.linspace(999, 0, steps + 1))
    alphas = 1 / np.sqrt(1 + sigmas**2)
    levels = np.log(1 / sigmas)  # λ, since σ here is the paper's σ over α

    def guess(x, index):
        return denoised(x / alphas[index], sigmas[index])

    x = start
    guesses = [guess(x, 0)]
    for index in range(1, steps + 1):
        order = min(3, index, steps + 1 - index)
        h = levels[index] - levels[index - 1]
        ratio = sigmas[index] * alphas[index] / (sigmas[index - 1] * alphas[index - 1])
        alpha = alphas[index]
        near = [levels[index - 1 - i] for i in range(order)]
        known = [guesses[index - 1 - i] for i in range(order)]
        plain = ratio * x - alpha * np.expm1(-h) * known[0]
        if order == 1:
            reached = plain
        elif order == 2:
            slope = (known[1] - known[0]) / ((near[1] - near[0]) / h)
            reached = plain + alpha * h / 2 * slope
        else:
            reached = ratio * x + integral(near, known, levels[index - 1], levels[index], alpha)
        if index == steps:
            x = reached
            break
        new = guess(reached, index)
        if order == 1:
            x = plain + alpha * h / 2 * (new - known[0])
        else:
            points, values = [*near, levels[index]], [*known, new]
            x = ratio * x + integral(points, values, levels[index - 1], levels[index], alpha)
        guesses.append(new)
    torch.testing.assert_close(ours.double(), x, atol=2e-4, rtol=0)


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
