"""What the header of a grid says of its axes, without drawing an image."""

from dataclasses import replace
from pathlib import Path

import pytest

from lora_lab.config import GridConfig
from lora_lab.run_folder.saved_loras import Rows, RunLoRAs
from lora_lab.sampling.grids.compose import Table, compose
from settings import tiny_sampling

RUN = RunLoRAs(Path("run"), "run", "", False, (), "")


@pytest.fixture(scope="module")
def sampling():
    config = tiny_sampling(Path("base"), sampler="Euler", guidance=5.0)
    config.axes.guidance, config.axes.sampler = [1.0, 3.0], ["Euler", "DDIM"]
    return config


def headers(sampling, rows: str, columns: str, pages: str | None = None) -> list[tuple[str, str]]:
    """Title and settings of each page."""
    config = replace(sampling, grids=[])
    grid = GridConfig("mine", rows, columns, pages, ["simple"])
    table = Table(Rows("", (RUN,), "mine"), grid, config, {}, ["base"])
    return [(grid.title, dict(grid.facts)["Settings"]) for grid in compose(table, {}, {}, {})]


def test_what_is_an_axis_is_left_out_of_the_settings(sampling):
    (_, settings), *others = headers(sampling, "value", "seed")
    assert settings.startswith("Euler, 3 steps, guidance 5, 32×32 px") and not others
    (_, settings), *_ = headers(sampling, "sampler", "guidance")
    assert settings.startswith("3 steps, seed ")


def test_a_page_says_its_place_on_the_third_axis(sampling):
    first, second = headers(sampling, "value", "seed", "guidance")
    assert first[0].endswith("· guidance 1") and second[0].endswith("· guidance 3")
