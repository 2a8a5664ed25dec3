"""Checkpoints that predict v (arXiv 2202.00512, section 4): trained, described and sampled."""

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from safetensors import safe_open

from lora_lab.errors import LabError
from lora_lab.sampling.samplers import SAMPLERS, make_sampler
from settings import composed
from tiny_model import sd15_noise_scheduler
from train import train
from train_setup import train_config


def schedule(**changes: object) -> DDPMScheduler:
    return DDPMScheduler.from_config(sd15_noise_scheduler().config, **changes)


def sampled(name: str, noise_scheduler: DDPMScheduler) -> torch.Tensor:
    """A toy model that takes any noisy image for 0.3 everywhere, asked in its own terms."""
    predicts_v = noise_scheduler.config["prediction_type"] == "v_prediction"
    sampler = make_sampler(name, noise_scheduler, 6, [1])
    generators = [torch.Generator().manual_seed(1)]
    draws = torch.Generator().manual_seed(2)
    latents = torch.randn(1, 4, 4, 4, generator=draws) * sampler.initial_scale
    for timestep in sampler.timesteps:
        alphas = noise_scheduler.alphas_cumprod[int(timestep)]
        alpha, sigma = alphas.sqrt(), (1 - alphas).sqrt()
        noisy = sampler.model_input(latents, timestep)  # alpha x0 + sigma noise
        noise = (noisy - alpha * 0.3) / sigma
        answer = alpha * noise - sigma * 0.3 if predicts_v else noise
        latents = sampler.step(answer, timestep, latents, generators)
    return latents


@pytest.mark.parametrize("name", ["Euler a", "Euler", "DDIM"])
def test_v_and_epsilon_give_the_same_image_of_the_same_model(name):
    """Samplers whose timesteps are whole numbers; fp32, 1e-3."""
    epsilon, v = sampled(name, schedule()), sampled(name, schedule(prediction_type="v_prediction"))
    torch.testing.assert_close(v, epsilon, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if not name.startswith("DPM++ SDE")])
def test_sampling_from_pure_noise_works_with_zero_terminal_snr(name):
    """The betas are rescaled in the sampler, too: its noisiest sigma is far above SD 1.5's 14.6."""
    rescaled = schedule(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    sampler = make_sampler(name, rescaled, 6, [1])
    assert sampler.scheduler.alphas_cumprod[-1] < 1e-6
    assert torch.isfinite(sampled(name, rescaled)).all()


def test_a_sampler_that_can_not_begin_at_pure_noise_is_refused():
    pytest.importorskip("torchsde")
    with pytest.raises(LabError, match=r"DPM\+\+ SDE Karras can't begin at pure noise"):
        make_sampler("DPM++ SDE Karras", schedule(rescale_betas_zero_snr=True), 6, [1])


def test_training_learns_v_and_the_file_says_so(tmp_path, tiny_base, tiny_person):
    losses = []
    for prediction in ("epsilon", "v_prediction"):
        changes = {"model__prediction_type": prediction, "callbacks__held_out_loss": False}
        config = train_config(tiny_base, tiny_person, epochs=1, **changes)
        train(config, tmp_path / prediction)
        losses.append((tmp_path / prediction / "metrics.csv").read_text())
        with safe_open(tmp_path / prediction / "lora" / "lora.safetensors", "pt") as file:
            said = file.metadata()["modelspec.prediction_type"]
        assert said == {"epsilon": "epsilon", "v_prediction": "v"}[prediction]
    assert losses[0] != losses[1]


def test_the_grids_of_a_run_are_drawn_as_the_base_was_trained():
    assert composed("model.prediction_type=v_prediction").sampling.prediction_type == "v_prediction"
    assert composed().sampling.prediction_type is None
