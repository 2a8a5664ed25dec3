"""The benchmarks measure and print, on the tiny base."""

import pytest

from benchmarks import sampling, training_step
from benchmarks.table import paired, render


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


def test_paired_takes_the_median_of_the_ratios_round_by_round():
    row = paired("x", ours=[2.0, 30.0, 4.0], bare=[1.0, 10.0, 4.0], unit="s")
    assert (row.ours, row.bare, row.ratio) == (4.0, 4.0, 2.0)


def test_the_table_shows_ours_bare_ratio_and_unit():
    lines = render([paired("step", [2.0], [1.0], "s")]).splitlines()
    assert lines[0].split() == ["ours", "bare", "ratio", "unit"]
    assert lines[1].split() == ["step", "2", "1", "2.00", "s"]


def test_sampling_is_measured_against_a_bare_loop_and_against_pipelines(tiny_overrides):
    bare, pipelines = sampling.measure(tiny_overrides, rounds=1)
    for row in (bare, pipelines):
        assert row.unit == "images/s" and row.ours > 0 and row.bare and row.ratio


@pytest.mark.slow
def test_training_is_measured_against_bare_loops(tiny_overrides):
    same, floor = training_step.measure(tiny_overrides, steps=8)
    assert same.ours == floor.ours > 0
    assert same.ratio is not None and 0.2 < same.ratio < 20
