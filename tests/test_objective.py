import math
from itertools import pairwise

import numpy as np
import pytest
import scipy
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import compute_snr
from PIL import Image

from lora_lab.config.objective import LOSS_TYPES
from lora_lab.errors import LabError
from lora_lab.objective import (
    LOSSES,
    add_noise,
    debiased_weights,
    draw_timestep,
    elementwise_loss,
    huber_thresholds,
    image_means,
    min_snr_weights,
    offset_noise,
    perturbed_noise,
    pyramid_levels,
    pyramid_noise,
    signal_to_noise,
    squared_error,
    stratified,
    target,
    zero_terminal_alphas_cumprod,
)
from lora_lab.randomness import derive_seed

TIMESTEPS = torch.tensor([0, 1, 250, 500, 999])


@pytest.fixture
def scheduler() -> DDPMScheduler:
    return DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 5, 4, 8, 8, generator=draws)
    return latents, noise


def test_add_noise_agrees_with_diffusers(scheduler, pair):
    ours = add_noise(pair[0], pair[1], TIMESTEPS, scheduler.alphas_cumprod)
    torch.testing.assert_close(ours, scheduler.add_noise(*pair, TIMESTEPS), rtol=1e-6, atol=1e-6)


def test_velocity_agrees_with_diffusers(scheduler, pair):
    ours = target("v_prediction", pair[0], pair[1], TIMESTEPS, scheduler.alphas_cumprod)
    theirs = scheduler.get_velocity(*pair, TIMESTEPS)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_epsilon_target_is_the_noise(scheduler, pair):
    assert target("epsilon", pair[0], pair[1], TIMESTEPS, scheduler.alphas_cumprod) is pair[1]


def test_unknown_prediction_type_is_refused(scheduler, pair):
    with pytest.raises(LabError, match="prediction_type 'sample'"):
        target("sample", pair[0], pair[1], TIMESTEPS, scheduler.alphas_cumprod)


def test_snr_agrees_with_diffusers(scheduler):
    ours = signal_to_noise(scheduler.alphas_cumprod)[TIMESTEPS]
    torch.testing.assert_close(ours, compute_snr(scheduler, TIMESTEPS), rtol=1e-5, atol=0)


def test_snr_of_sd15_at_both_ends():
    """By hand: 1 / 0.00085 - 1 at t = 0; the product of all 1 - β is 0.0047 at the end."""
    betas = [(math.sqrt(0.00085) + i / 999 * (math.sqrt(0.012) - math.sqrt(0.00085))) ** 2
             for i in range(1000)]  # fmt: skip
    alpha_bar = math.prod(1 - beta for beta in betas)
    snr = signal_to_noise(torch.tensor([1 - 0.00085, alpha_bar], dtype=torch.float64))
    assert snr.tolist() == pytest.approx([1175.4706, 0.0047 / 0.9953], rel=1e-2)


def test_min_snr_weights_by_hand():
    snr = torch.tensor([0.5, 5.0, 20.0])
    assert min_snr_weights(snr, 5.0, "epsilon").tolist() == [1.0, 1.0, 0.25]
    expected = [0.5 / 1.5, 5 / 6, 5 / 21]
    assert min_snr_weights(snr, 5.0, "v_prediction").tolist() == pytest.approx(expected)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_gamma_zero_turns_the_weights_off(prediction_type):
    assert min_snr_weights(torch.tensor([0.1, 90.0]), 0, prediction_type).tolist() == [1.0, 1.0]


def test_weights_at_a_signal_of_zero_are_the_limit():
    assert min_snr_weights(torch.zeros(1), 5.0, "epsilon").tolist() == [1.0]
    assert min_snr_weights(torch.zeros(1), 5.0, "v_prediction").tolist() == [0.0]


def test_debiased_weights_by_hand():
    """1 / sqrt(SNR) with a cap of 1000; for v the same error of ε: SNR / (SNR + 1) times that."""
    snr = torch.tensor([0.25, 4.0, 1e6])
    assert debiased_weights(snr, "epsilon").tolist() == pytest.approx([2.0, 0.5, 1000**-0.5])
    expected = [2.0 * 0.2, 0.5 * 0.8, 1000**-0.5 * 1000 / 1001]
    assert debiased_weights(snr, "v_prediction").tolist() == pytest.approx(expected)


@pytest.mark.parametrize("weights", ["min_snr", "debiased"])
def test_v_weights_give_the_weighted_error_of_epsilon(weights, scheduler, pair):
    """An error of v times its weight is the error of ε that it implies times the weight of ε."""
    alphas = scheduler.alphas_cumprod
    steps = torch.tensor([100, 250, 500, 700, 999])
    x0, noise = pair
    noisy = add_noise(x0, noise, steps, alphas)
    v = target("v_prediction", x0, noise, steps, alphas)
    wrong = v + 0.1
    alpha = alphas[steps].view(-1, 1, 1, 1)
    implied = alpha.sqrt() * wrong + (1 - alpha).sqrt() * noisy  # ε that the wrong v stands for
    snr = signal_to_noise(alphas[steps])
    if weights == "min_snr":
        by_v, by_epsilon = min_snr_weights(snr, 5.0, "v_prediction"), min_snr_weights(snr, 5.0, "e")
    else:
        by_v, by_epsilon = debiased_weights(snr, "v_prediction"), debiased_weights(snr, "epsilon")
    left = by_v * squared_error(wrong, v)
    torch.testing.assert_close(left, by_epsilon * squared_error(implied, noise), rtol=1e-3, atol=0)


def test_zero_terminal_schedule_agrees_with_diffusers(scheduler):
    """arXiv 2305.08891, algorithm 1, in diffusers' implementation over betas."""
    ours = zero_terminal_alphas_cumprod(scheduler.alphas_cumprod)
    theirs = torch.cumprod(1.0 - rescale_zero_terminal_snr(scheduler.betas), dim=0)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)
    assert ours[-1] == 0 and ours[0] == pytest.approx(float(scheduler.alphas_cumprod[0]))
    assert bool((ours[1:] < ours[:-1]).all())


def test_noise_offset_shifts_the_mean_of_each_channel(pair):
    _, noise = pair
    draw = torch.randn(5, 4, 1, 1, generator=torch.Generator().manual_seed(1))
    shift = (offset_noise(noise, draw, 0.1) - noise).mean(dim=(2, 3))
    torch.testing.assert_close(shift, 0.1 * draw[:, :, 0, 0], rtol=1e-4, atol=1e-5)


def test_noise_offset_of_its_own_for_each_image(pair):
    _, noise = pair
    strengths = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4])
    shift = (offset_noise(noise, torch.ones(5, 4, 1, 1), strengths) - noise).mean(dim=(1, 2, 3))
    torch.testing.assert_close(shift, strengths, rtol=1e-4, atol=1e-5)


def test_noise_offset_zero_leaves_the_noise(pair):
    assert offset_noise(pair[1], torch.ones(5, 4, 1, 1), 0.0) is pair[1]


def test_pyramid_noise_is_the_sum_of_its_levels_with_unit_deviation():
    """The sum by hand, level by level."""
    levels = pyramid_levels((4, 16, 16), 6, torch.Generator().manual_seed(3))
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(4))
    by_hand = noise[0].clone()
    for power, level in enumerate(levels):
        by_hand += 0.3**power * level
    made = pyramid_noise(noise, levels[None], 0.3)
    torch.testing.assert_close(made[0], by_hand / by_hand.std(), rtol=1e-5, atol=1e-6)
    assert float(made.std()) == pytest.approx(1.0, abs=1e-6)


def test_each_pyramid_level_has_its_share_of_the_full_size():
    """kohya's sizes since May 2023; PIL enlarges every level as an independent check."""
    levels = pyramid_levels((4, 96, 64), 6, torch.Generator().manual_seed(1))
    draws = torch.Generator().manual_seed(1)
    sizes = []
    for power, level in enumerate(levels):
        ratio = 2 + 2 * float(torch.rand((), generator=draws))
        sizes.append((max(1, int(96 / ratio**power)), max(1, int(64 / ratio**power))))
        for coarse, found in zip(torch.randn((4, *sizes[-1]), generator=draws), level, strict=True):
            enlarged = Image.fromarray(coarse.numpy()).resize((64, 96), Image.Resampling.BILINEAR)
            expected = torch.tensor(np.array(enlarged))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        if 1 in sizes[-1]:
            break
    assert sizes[0] == (96, 64) and sizes[2][0] > 6 and len(sizes) >= 4
    assert not levels[len(sizes) :].any()


def test_pyramid_noise_correlates_neighbours_and_plain_noise_does_not():
    levels = torch.stack(
        [pyramid_levels((4, 32, 32), 6, torch.Generator().manual_seed(i)) for i in range(20)]
    )
    noise = torch.randn(20, 4, 32, 32, generator=torch.Generator().manual_seed(0))

    def neighbours(x: torch.Tensor) -> float:
        return float((x[..., 1:] * x[..., :-1]).mean() / x.pow(2).mean())

    assert abs(neighbours(noise)) < 0.01
    assert neighbours(pyramid_noise(noise, levels, 0.8)) > 0.2


def test_more_pyramid_levels_begin_with_the_fewer():
    few = pyramid_levels((4, 16, 16), 2, torch.Generator().manual_seed(3))
    many = pyramid_levels((4, 16, 16), 8, torch.Generator().manual_seed(3))
    assert torch.equal(few, many[:2]) and not many[-1].any()


def test_input_perturbation_adds_variance_to_the_input_alone(pair):
    """Var = 1 + γ² (arXiv 2301.11706); the target isn't its business."""
    ones, draws = torch.zeros(1, 4, 64, 64), torch.Generator().manual_seed(0)
    noise, other = (torch.randn(ones.shape, generator=draws) for _ in range(2))
    assert float(perturbed_noise(noise, other, 0.5).var()) == pytest.approx(1.25, rel=0.03)
    assert perturbed_noise(noise, other, 0.0) is noise


def test_squared_error_is_the_mean_of_each_image(pair):
    errors = squared_error(*pair)
    one = torch.nn.functional.mse_loss(pair[0][2], pair[1][2])
    assert errors.shape == (5,)
    torch.testing.assert_close(errors[2], one)


@pytest.mark.parametrize(
    ("loss_type", "expected"),
    [
        ("l2", [0.0, 0.25, 16.0]),
        ("l1", [0.0, 0.5, 4.0]),
        # 2c (sqrt(e² + c²) - c) with c = 0.3, e = 0.5: sqrt(0.34) = 0.5830952
        ("huber", [0.0, 0.6 * 0.2830952, 0.6 * (16.09**0.5 - 0.3)]),
        ("smooth_l1", [0.0, 2 * 0.2830952, 2 * (16.09**0.5 - 0.3)]),
    ],
)
def test_losses_by_hand(loss_type, expected):
    prediction = torch.tensor([0.0, 0.5, -4.0]).view(1, 3, 1, 1)
    threshold = torch.tensor([0.3])
    loss = elementwise_loss(prediction, torch.zeros(1, 3, 1, 1), loss_type, threshold)
    assert loss.flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_every_loss_that_a_config_may_name_has_a_formula():
    assert tuple(LOSSES) == LOSS_TYPES


def test_huber_is_between_l2_and_l1():
    """For small errors e², for large ones of slope 2c; smooth_l1 of slope 2."""
    error = torch.tensor([1e-3, 1e3]).view(2, 1, 1, 1).requires_grad_()
    c = torch.tensor([0.1, 0.1])
    loss = elementwise_loss(error, torch.zeros_like(error), "huber", c)
    assert float(loss[0].detach()) == pytest.approx(1e-6, rel=1e-2)
    (slope,) = torch.autograd.grad(loss.sum(), error)
    assert slope[1].item() == pytest.approx(0.2, rel=1e-3)
    steep = elementwise_loss(error, torch.zeros_like(error), "smooth_l1", c).sum()
    assert torch.autograd.grad(steep, error)[0][1].item() == pytest.approx(2.0, rel=1e-3)


def test_huber_thresholds_by_hand(scheduler):
    alphas = scheduler.alphas_cumprod
    steps = torch.tensor([0, 500, 999])
    assert huber_thresholds("constant", 0.1, steps, alphas).tolist() == pytest.approx([0.1] * 3)
    exponential = huber_thresholds("exponential", 0.1, steps, alphas)
    assert exponential.tolist() == pytest.approx([1.0, 0.1**0.5, 0.1**0.999], rel=1e-5)
    sigma = [((1 - float(alphas[t])) / float(alphas[t])) ** 0.5 for t in steps]
    by_hand = [0.9 / (1 + s) ** 2 + 0.1 for s in sigma]
    assert huber_thresholds("snr", 0.1, steps, alphas).tolist() == pytest.approx(by_hand, rel=1e-4)


def test_masked_loss_counts_what_the_mask_shows():
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 2, 2).expand(2, 4, 2, 2)
    masks = torch.tensor([[[[1.0, 0.0], [0.5, 0.0]]], [[[1.0, 1.0], [1.0, 1.0]]]])
    assert image_means(losses, masks).tolist() == [2.5 / 4, 2.5]
    assert image_means(losses, None).tolist() == [2.5, 2.5]


def test_uniform_timesteps_fill_their_range():
    drawn = [draw_timestep(derive_seed(i), "uniform", 200, 210) for i in range(3000)]
    assert set(drawn) == set(range(200, 210))
    assert max(drawn.count(t) for t in set(drawn)) < 1.3 * 300


def test_logit_normal_timesteps_follow_scipys_quantiles():
    """The share below t is Φ((logit(t / T) - mean) / std), with scipy's normal distribution."""
    drawn = np.array(
        [draw_timestep(derive_seed(i), "logit_normal", 0, 1000, 0.5, 0.8) for i in range(20_000)]
    )
    for t in (100, 300, 500, 700, 900):
        expected = scipy.stats.norm.cdf((scipy.special.logit(t / 1000) - 0.5) / 0.8)
        assert (drawn < t).mean() == pytest.approx(expected, abs=0.015)
    assert drawn.min() >= 0 and drawn.max() < 1000


@pytest.mark.parametrize("sampling", ["uniform", "logit_normal"])
def test_strata_part_the_distribution(sampling):
    """Each part draws within its own quantiles, and all together as without parts."""
    parts = [
        [stratified(derive_seed(part, i), part, 4, sampling, 0, 1000) for i in range(500)]
        for part in range(4)
    ]
    assert all(max(lower) <= min(upper) for lower, upper in pairwise(parts))
    plain = sorted(draw_timestep(derive_seed(i), sampling, 0, 1000) for i in range(2000))
    together = sorted(t for part in parts for t in part)
    for share in (0.1, 0.5, 0.9):
        assert together[int(share * 2000)] == pytest.approx(plain[int(share * 2000)], abs=30)
