"""The benchmarks measure and print, on the tiny base; a clock of ours holds what is counted."""

import re
from dataclasses import dataclass, field

import pytest
import torch

from benchmarks import sampling, training_step
from benchmarks.settings import train_settings
from benchmarks.table import paired, render
from lora_lab.checkpoint.base_model import load_base
from lora_lab.network import inject_lora


@pytest.fixture
def tiny_overrides(tiny_base, tiny_person):
    return [
        f"model.checkpoint={tiny_base}",
        f"data.dir={tiny_person}",
        "data.resolution=32",
        "sampling.width=32",
        "sampling.height=32",
        "sampling.steps=2",
        "sampling.batch_size=2",
        "trainer.threads=1",
    ]


@dataclass
class StoppedClock:
    """Stands where the module `time` does; goes on only when it is told to."""

    now: float = 0.0

    def perf_counter(self) -> float:
        return self.now


@dataclass
class BareStep:
    """A bare loop whose steps take as long as it says."""

    clock: StoppedClock
    seconds: float
    seen: list[tuple[int, int]] = field(default_factory=list)

    def step(self, latents: int, input_ids: int) -> float:
        self.clock.now += self.seconds
        self.seen.append((latents, input_ids))
        return self.seconds


def test_paired_takes_the_median_of_the_ratios_round_by_round():
    row = paired("x", ours=[2.0, 30.0, 4.0], bare=[1.0, 10.0, 4.0], unit="s")
    assert (row.ours, row.bare, row.ratio) == (4.0, 4.0, 2.0)


def test_the_table_shows_ours_bare_ratio_and_unit():
    lines = render([paired("step", [2.0], [1.0], "s")]).splitlines()
    assert lines[0].split() == ["ours", "bare", "ratio", "unit"]
    assert lines[1].split() == ["step", "2", "1", "2.00", "s"]


def test_a_step_of_ours_is_all_between_two_batches_and_no_bare_step(monkeypatch):
    """The loading of the batch (0.5 s) and what is done with it; bare steps see the same batch."""
    clock = StoppedClock()
    monkeypatch.setattr(training_step, "time", clock)
    loops = [BareStep(clock, 2.0), BareStep(clock, 5.0)]
    seconds: list[list[float]] = [[], [], []]

    def deliver(place: int) -> dict[str, int]:
        clock.now += 0.5
        return {"latents": place, "input_ids": -place}

    batch = training_step.interleave(deliver, loops, seconds)
    for place, step in enumerate((3.0, 4.0, 7.0)):
        assert batch(place) == {"latents": place, "input_ids": -place}
        clock.now += step
    assert seconds == [[3.5, 4.5], [2.0] * 3, [5.0] * 3]
    assert loops[0].seen == loops[1].seen == [(0, 0), (1, -1), (2, -2)]


@pytest.mark.parametrize("fused_adamw", [False, True])
def test_a_bare_step_trains_the_tensors_that_ours_trains(fused_adamw, tiny_overrides):
    config = train_settings(tiny_overrides)
    loop = training_step.BareLoop(config, fused_adamw)
    before = {name: flat.detach().clone() for name, (flat,) in loop.groups.items()}
    with inject_lora(load_base(config.model.checkpoint), config.network, config.seed) as network:
        parts = network.trainable(config.model.clip_skip)
        ours = {name: sum(tensor.numel() for tensor in tensors) for name, tensors in parts.items()}
    assert {name: flat.numel() for name, flat in before.items()} == ours
    draws = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=draws)
    input_ids = torch.randint(0, 500, (2, 77), generator=draws)
    for _ in range(2):  # the first moves the upper matrices, the second all
        loop.step(latents, input_ids)
    for name, (flat,) in loop.groups.items():
        assert flat.grad is not None and not flat.grad.any()
        assert float((flat != before[name]).float().mean()) > 0.9, name


@pytest.mark.slow
def test_sampling_is_measured_against_a_bare_loop_and_against_pipelines(tiny_overrides):
    bare, pipelines = sampling.measure(tiny_overrides, rounds=1)
    for row in (bare, pipelines):
        assert row.unit == "images/s" and row.ours > 0 and row.bare and row.ratio


def test_a_run_is_drawn_by_both_in_the_same_images(monkeypatch, tiny_overrides, tmp_path):
    """29 images: two of each of ten LoRAs, nine of the last; the bare loop fills its batches."""
    config = train_settings(tiny_overrides)
    drawn, counts = sampling.LoRAPipeline.draw, []
    monkeypatch.setattr(
        sampling.LoRAPipeline,
        "draw",
        lambda *given: (counts.append(len(given[1])), drawn(*given))[1],
    )
    bare, sizes = sampling.bare_images, []
    monkeypatch.setattr(
        sampling, "bare_images", lambda *given: (sizes.append(len(given[2])), bare(*given))[1]
    )
    config.sampling.batch_size, config.sampling.loras_at_once = 10, 10
    row = sampling._within_a_process(config, tmp_path, rounds=1)
    assert counts == [29, 29] and sizes == [9, 10, 10] * 2
    assert "29 images of 2 steps" in row.what


def test_the_loop_of_pipelines_draws_each_lora_on_each_checkpoint(
    tiny_overrides, tiny_base, tmp_path
):
    config = train_settings([*tiny_overrides, f"sampling.checkpoints=[{tiny_base}]"])
    (tmp_path / "lora").mkdir()
    for number in range(10):
        (tmp_path / "lora" / f"{number}.safetensors").touch()
    plan = sampling._plan(config, tmp_path, tmp_path / "out", threads=1)
    assert [len(one.prompts) for one in plan.sets] == [2] * 9 + [11]
    assert all(one.checkpoint == str(tiny_base) for one in plan.sets)
    assert all("{subject}" not in prompt for one in plan.sets for prompt in one.prompts)


@pytest.mark.slow
def test_training_is_measured_against_bare_loops(tiny_overrides):
    same, floor = training_step.measure(tiny_overrides, steps=8)
    assert same.ours == floor.ours > 0
    assert same.bare and floor.bare and same.bare != floor.bare
    steps = re.search(r"\((\d+) steps\)", same.what)
    assert steps is not None and int(steps[1]) >= 8
