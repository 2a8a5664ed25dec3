"""The images of a sweep as jobs of its launcher: as drawn at home, and again when one is lost."""

from pathlib import Path

import pytest

from command_line import CommandResult, call, tiny_arguments
from lora_lab.cli import sweeper
from lora_lab.cli.image_jobs import image_job
from lora_lab.sampling.grids.draw_grids import GridDrawer, draw_grids
from settings import composed
from train import main


def sweep(base: Path, person: Path, folder: Path, *arguments: str) -> CommandResult:
    others = [*tiny_arguments(base, person), f"hydra.sweep.dir={folder}", "study.reuse_from=null"]
    others = [one for one in others if not one.startswith("study.seeds")]
    return call("-m", *others, "study.seeds=1", "network.dim=2,4", *arguments, task=main)


def images(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("images/**/*.png")}


@pytest.fixture
def lost(monkeypatch):
    """Loses the first launch of image jobs after its first job is done; counts the jobs of each."""
    launches = []
    launch = sweeper._launch_batch

    def breaking(launcher, jobs, first):
        if launcher.task_function is not image_job:
            return launch(launcher, jobs, first)
        launches.append(len(jobs))
        if len(launches) > 1:
            return launch(launcher, jobs, first)
        launch(launcher, jobs[:1], first)
        return ["a worker was killed"] * len(jobs)

    monkeypatch.setattr(sweeper, "_launch_batch", breaking)
    return launches


def test_jobs_draw_what_is_drawn_at_home_and_a_lost_job_is_taken_up_again(
    tiny_base, tiny_person, tmp_path, lost, caplog
):
    folder = tmp_path / "sweep"
    with caplog.at_level("INFO"):
        answer = sweep(tiny_base, tiny_person, folder)
    assert answer.status == 0, answer.err
    assert lost == [2, 2] and "are drawn again" in answer.err + caplog.text
    before = images(folder)
    assert len(before) == 2 * (2 * 2 + 9)
    grids = {path: path.read_bytes() for path in folder.glob("report/grid_*.png")}
    assert len(grids) == 3
    for path in [*before, *grids]:
        path.unlink()
    config = call_config(tiny_base, tiny_person)
    assert not draw_grids(folder, config).problems
    assert images(folder) == before
    assert {path: path.read_bytes() for path in grids} == grids


def call_config(base: Path, person: Path):
    return composed(*tiny_arguments(base, person)).sampling


def test_where_the_command_is_typed_no_base_is_loaded(
    tiny_base, tiny_person, tmp_path, monkeypatch
):
    drawn = []
    draw = GridDrawer.draw
    monkeypatch.setattr(
        GridDrawer, "draw", lambda self, *run: (drawn.append(run), draw(self, *run))[1]
    )
    assert sweep(tiny_base, tiny_person, tmp_path / "sweep").status == 0
    assert len(drawn) == 2 and all(len(run) == 2 for run in drawn), "by the job of each run alone"
