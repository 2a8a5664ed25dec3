import math

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import compute_snr

from lora_lab.errors import LabError
from lora_lab.objective import (
    add_noise,
    min_snr_weights,
    offset_noise,
    signal_to_noise,
    squared_error,
    target,
)

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


def test_noise_offset_shifts_the_mean_of_each_channel(pair):
    _, noise = pair
    draw = torch.randn(5, 4, 1, 1, generator=torch.Generator().manual_seed(1))
    shift = (offset_noise(noise, draw, 0.1) - noise).mean(dim=(2, 3))
    torch.testing.assert_close(shift, 0.1 * draw[:, :, 0, 0], rtol=1e-4, atol=1e-5)


def test_noise_offset_zero_leaves_the_noise(pair):
    assert offset_noise(pair[1], torch.ones(5, 4, 1, 1), 0.0) is pair[1]


def test_squared_error_is_the_mean_of_each_image(pair):
    errors = squared_error(*pair)
    one = torch.nn.functional.mse_loss(pair[0][2], pair[1][2])
    assert errors.shape == (5,)
    torch.testing.assert_close(errors[2], one)
