"""The objective's random numbers are paired by (seed, image, step, occurrence), strata by step."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from lora_lab.data.loader import PairedLoader
from lora_lab.data.noise_inputs import NoiseInputs, NoiseSeed, sample_noise
from test_loader import epochs, items, loader
from train_setup import OBJECTIVE

SHAPE = torch.Size((4, 8, 8))
SEED = NoiseSeed(seed=1, key="a.png", step=3, occurrence=0, stratum=1, strata=4)


def inputs(**changes: Any) -> NoiseInputs:
    return sample_noise(SEED, SHAPE, replace(OBJECTIVE, **changes), 1000)


@pytest.mark.parametrize(
    "switch",
    [
        {"multires_noise_iterations": 6},
        {"ip_noise_gamma": 0.1},
        {"noise_offset": 0.1, "noise_offset_random": True},
        {"timestep_sampling": "logit_normal"},
        {"timestep_stratified": True},
    ],
)
def test_turning_a_setting_on_leaves_the_other_numbers(switch):
    plain, other = inputs(), inputs(**switch)
    assert torch.equal(plain.noise, other.noise) and torch.equal(plain.offset, other.offset)
    assert plain.strength == other.strength
    if "timestep" not in next(iter(switch)):
        assert plain.timestep == other.timestep


def test_the_numbers_of_one_sample_are_independent_of_each_other():
    made = inputs(ip_noise_gamma=0.1, multires_noise_iterations=2)
    assert made.perturbation is not None and made.levels is not None
    flat = torch.stack([made.noise, made.perturbation, made.levels[0]]).flatten(1)
    assert float(torch.corrcoef(flat).triu(1).abs().max()) < 0.2


def test_timesteps_stay_in_their_range():
    for sampling in ("uniform", "logit_normal"):
        for stratified in (False, True):
            made = inputs(
                timestep_sampling=sampling,
                timestep_stratified=stratified,
                min_timestep=100,
                max_timestep=101,
            )
            assert made.timestep == 100


def stratify(source: PairedLoader) -> PairedLoader:
    source.objective = replace(source.objective, timestep_stratified=True)
    return source


def test_stratified_timesteps_cover_each_step_evenly():
    """8 samples a step over two batches of 4: one in each eighth of the 1000 timesteps."""
    batches = epochs(stratify(loader(items(8, repeats=1), accumulate=2, batch_size=4)), 3)
    for number in range(0, len(batches), 2):
        steps = torch.cat([batch["timesteps"] for batch in batches[number : number + 2]])
        assert sorted((steps // 125).tolist()) == list(range(8))


def test_stratified_timesteps_depend_on_the_images_of_the_step_alone():
    """The same images in one batch or in two, drawn in another order: the same timesteps."""

    def timesteps(batch_size: int, accumulate: int) -> dict[tuple[str, int], int]:
        things = items(8, repeats=1)
        batches = epochs(stratify(loader(things, accumulate, batch_size=batch_size)), 2)
        return {
            (key, batch["step"]): int(step)
            for batch in batches
            for key, step in zip(batch["keys"], batch["timesteps"], strict=True)
        }

    assert timesteps(8, 1) == timesteps(4, 2) == timesteps(2, 4)
    assert timesteps(8, 1) != timesteps(4, 1)


def test_every_batch_knows_how_many_images_its_step_has():
    batches = epochs(loader(items(5, repeats=1), accumulate=2, batch_size=2), 1)
    assert [len(batch["keys"]) for batch in batches] == [2, 2, 1]
    assert [batch["step_images"] for batch in batches] == [4, 4, 1]
