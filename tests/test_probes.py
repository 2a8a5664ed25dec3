from collections import Counter
from dataclasses import replace

import pytest
import torch

from lora_lab.clock import Clock
from lora_lab.data import probes
from lora_lab.data.data_module import LoRADataModule
from lora_lab.data.inputs import Inputs, SharedInputs
from lora_lab.data.probes import HELD_OUT, TIMESTEPS, TRAINING, make_probes, one_timestep_each
from lora_lab.network import inject_lora
from lora_lab.training.module import LoRAModule
from train_setup import train_config


@pytest.fixture(scope="module")
def inputs(tiny_base, tiny_person) -> Inputs:
    """Six training images and three held-out ones."""
    return Inputs.load(train_config(tiny_base, tiny_person), SharedInputs(), Clock())


@pytest.mark.parametrize("images", [1, 3, 5, 7, 24])
def test_each_image_has_a_timestep_and_each_timestep_as_many_images(images):
    units = one_timestep_each([f"{number}.png" for number in range(images)])
    timesteps = Counter(timestep for _, timestep in units)
    assert len(set(units)) == len(units) == max(images, len(TIMESTEPS))
    assert {image for image, _ in units} == {f"{number}.png" for number in range(images)}
    assert max(timesteps.values()) - min(timesteps[timestep] for timestep in TIMESTEPS) <= 1


def test_which_image_has_which_timestep_does_not_depend_on_their_order():
    keys = [f"{number}.png" for number in range(12)]
    assert one_timestep_each(keys) == one_timestep_each(keys[::-1])


def many(inputs: Inputs, count: int) -> list:
    """Held-out items under other names."""
    items = []
    for number in range(count):
        item = inputs.held_out[number % len(inputs.held_out)]
        items.append(replace(item, example=replace(item.example, key=f"{number:02}.png")))
    return items


def units_of(part: str, chosen: list[probes.Probe]) -> set[probes.Unit]:
    return {unit for probe in chosen if probe.part == part for unit in probe.units}


def test_a_save_before_the_last_measures_two_held_out_images_at_each_timestep(
    inputs, tiny_base, tiny_person
):
    """Of 24 images; before the first step and at the last save there is more."""
    config = train_config(tiny_base, tiny_person)
    items = many(inputs, 24)
    made = make_probes(items, items, inputs.base.tokenizer, config.data)
    between = units_of(HELD_OUT, made.between)
    assert Counter(timestep for _, timestep in between) == dict.fromkeys(TIMESTEPS, 2)
    assert len({image for image, _ in between}) == 10 and not units_of(TRAINING, made.between)
    bare, last = units_of(HELD_OUT, made.bare), units_of(HELD_OUT, made.last)
    assert between < bare < last and (len(bare), len(last)) == (24, 120)
    assert units_of(TRAINING, made.bare) == units_of(TRAINING, made.last)
    assert len(units_of(TRAINING, made.last)) == 24


@pytest.mark.parametrize("images", [1, 3])
def test_a_pass_is_never_larger_than_allowed_and_changes_no_loss(
    images, inputs, tiny_base, tiny_person, monkeypatch
):
    config = train_config(tiny_base, tiny_person)
    data = LoRADataModule(inputs, config)
    with inject_lora(inputs.base, config.network, config.seed) as network, torch.no_grad():
        module = LoRAModule(inputs.base, network, config, data.total_steps)
        at_once = losses_of(module, data.probes.last)
        area = inputs.held_out[0].latents[0].numel()
        monkeypatch.setattr(probes, "LATENT_PIXELS", images * area)
        chosen = LoRADataModule(inputs, config).probes.last
        found = losses_of(module, chosen)
        sizes = [len(rows) for probe in chosen for rows, _, _ in probe.passes()]
    assert max(sizes) == images and sum(sizes) == len(at_once) == 20
    assert found == pytest.approx(at_once, rel=1e-5)


def losses_of(module: LoRAModule, chosen: list[probes.Probe]) -> dict[tuple, float]:
    return {
        (probe.part, *unit): loss
        for probe in chosen
        for unit, loss in zip(probe.units, module.validation_step(probe, 0).tolist(), strict=True)
    }
