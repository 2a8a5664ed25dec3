"""The configs and tokenizer that ship for single-file checkpoints are Stable Diffusion 1.5's."""

import pytest
import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

from lora_lab.checkpoint.base_model import load_tokenizer, read_config
from lora_lab.checkpoint.families.sd15 import SD15

# Sizes of runwayml/stable-diffusion-v1-5, as its model card's files add up to.
PARAMETERS = {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}


@pytest.mark.parametrize("part", list(PARAMETERS))
def test_each_part_has_as_many_parameters_as_stable_diffusion(part):
    with torch.device("meta"):
        module = SD15.build[part](read_config(SD15.configs / part / "config.json"))
    assert sum(p.numel() for p in module.parameters()) == PARAMETERS[part]


def test_the_tokenizer_gives_clips_own_tokens():
    tokenizer = load_tokenizer(SD15.configs / "tokenizer", 49408)
    # From the doctest of transformers' CLIP documentation: start, a, photo, of, a, cat, end.
    expected = [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("a photo of a cat").input_ids == expected
    assert tokenizer.model_max_length == 77


def test_the_schedule_is_scaled_linear_with_1000_steps():
    config = read_config(SD15.configs / "scheduler" / "scheduler_config.json")
    scheduler = DDPMScheduler.from_config(config)
    # (sqrt 0.00085 + t/999 (sqrt 0.012 - sqrt 0.00085))^2 at both ends
    assert scheduler.betas[0] == pytest.approx(0.00085, rel=1e-5)
    assert scheduler.betas[-1] == pytest.approx(0.012, rel=1e-5)
    assert len(scheduler.betas) == 1000 and config["prediction_type"] == "epsilon"
