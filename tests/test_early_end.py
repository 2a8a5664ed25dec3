"""`study.early_end`: who is judged where runs pause, what goes on, and what the report says."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from command_line import CommandResult, call, tiny_arguments
from lora_lab.study.judge.early_end import EarlyEnd, worse_values
from lora_lab.study.judge.verdict import judge
from lora_lab.study.read.load import load_sweep
from lora_lab.study.report.build import build_report
from lora_lab.training.callbacks.pause import pause_step
from study_sweep_builder import SweepBuilder
from train import main

SEEDS = [1234, 1235, 1236]
PAUSE, TOTAL = 80, 240
"""The builder's runs end at step 80, which is taken for a third of the way."""

pytestmark = pytest.mark.usefixtures("one_figure")


@pytest.fixture
def paused(tmp_path) -> SweepBuilder:
    return SweepBuilder(
        tmp_path / "sweep",
        seed_spread=0.0004,
        image_noise=0.0002,
        sweep_settings={"seeds": SEEDS, "max_seeds": None, "margin": 0.02, "early_end": True},
    )


def written(sweep: SweepBuilder, total: int = TOTAL) -> Path:
    """The sweep with all of its runs at their pause."""
    folder = sweep.write()
    for path in folder.rglob("run.json"):
        change(path, status="paused", paused_at=PAUSE, total_steps=total)
    return folder


def change(path: Path, **facts: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | facts), "utf-8")


def test_a_value_far_beyond_the_margin_is_clearly_worse(paused):
    paused.base(3).values("2", 3, effect=0.02).values("8", 3)
    assert worse_values(load_sweep(written(paused))) == {
        "2": EarlyEnd(PAUSE, pytest.approx(0.185, abs=0.005))
    }


def test_a_value_that_is_worse_within_the_margin_goes_on(paused):
    """It is shown to be worse at the end of a study, and even so by little."""
    paused.base(3).values("2", 3, effect=0.002)
    folder = written(paused)
    assert worse_values(load_sweep(folder)) == {}
    for path in folder.rglob("run.json"):
        change(path, status="complete")
    (result,) = [r for r in judge(load_sweep(folder)).values[0].results if r.seeds]
    assert result.verdict.value == "worse" and result.share(result.low) < 0.02


def test_a_value_that_is_better_goes_on(paused):
    paused.base(3).values("2", 3, effect=-0.02)
    assert worse_values(load_sweep(written(paused))) == {}


def test_early_ends_spend_a_tenth_of_the_error_rate(paused):
    """Five seeds, between which the value varies: shown at 5 %, not at 0.5 %."""
    paused.sweep_settings["margin"] = 0.0001
    paused.base(5).values("2", 5, effect=0.004, spread=0.002)
    folder = written(paused)
    assert worse_values(load_sweep(folder)) == {}
    for path in folder.rglob("run.json"):
        change(path, status="complete")
    study = judge(load_sweep(folder))
    assert study.values[0].verdict.value == "worse"
    assert study.values[0].first_result.level == pytest.approx(0.05 * 0.9)
    change(folder / "sweep.json", early_end=False)
    assert judge(load_sweep(folder)).values[0].first_result.level == pytest.approx(0.05)


def test_only_the_losses_up_to_the_pause_are_judged(paused):
    """A base that was trained on is far worse later on: that isn't looked at."""
    paused.base(3).values("2", 3, effect=0.02)
    folder = written(paused)
    for path in folder.glob("base*/held_out.csv"):
        rows = path.read_text("utf-8").splitlines()[1:]
        later = [f"{2 * PAUSE},{row.split(',', 1)[1].rpartition(',')[0]},9.0" for row in rows]
        path.write_text(path.read_text("utf-8") + "\n".join(later) + "\n", "utf-8")
    assert set(worse_values(load_sweep(folder))) == {"2"}


@pytest.mark.parametrize(
    "obstacle", ["other steps", "one complete", "other images", "not measured"]
)
def test_a_value_that_cannot_be_compared_goes_on(paused, obstacle):
    paused.base(3).values("2", 3, effect=0.02)
    folder = written(paused)
    runs = sorted(path for path in folder.rglob("run.json") if "dim" in path.parent.name)
    if obstacle == "other steps":
        for path in runs:
            change(path, total_steps=TOTAL + 30)
    elif obstacle == "one complete":
        change(runs[0], status="complete")
    elif obstacle == "other images":
        for path in runs:
            told = json.loads(path.read_text("utf-8"))["fingerprints"] | {"images": "0" * 64}
            change(path, fingerprints=told)
    else:
        for path in runs:
            change(path, paused_at=PAUSE - 1)
    assert worse_values(load_sweep(folder)) == {}


def test_the_report_tells_it_and_compares_nothing_at_the_end(paused):
    paused.base(3).values("2", 3, effect=0.02).values("8", 3)
    folder = written(paused)
    for path in folder.rglob("run.json"):
        change(path, status="complete")
    words = "ended early at step 80: worse by 15 % in held-out loss"
    ended = [path for path in folder.rglob("run.json") if "dim=2" in path.parent.name]
    for path in ended:
        change(path, status="ended early", ended_early={"step": PAUSE, "reason": words})
    page = build_report(folder).page.read_text("utf-8")
    report = folder / "report"
    twin = (report / "report.md").read_text("utf-8")
    assert twin.startswith("# dim 8 does as well as 16; 2 ended early as worse.\n")
    assert words in page and f"| 2 | ✕ {words} | – |" in twin
    assert "How 2 would have done at the end" in twin and "## Problems" not in twin
    with (report / "verdicts.csv").open(encoding="utf-8") as file:
        rows = {row["value"]: row for row in csv.DictReader(file)}
    assert rows["2"]["verdict"] == "ended early" and rows["2"]["reason"] == words
    assert rows["2"]["effect"] == "" and rows["8"]["verdict"] == "as good"
    with (report / "comparison.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            assert bool(row["held_out_loss"]) == bool(row["tail_loss"]) == (row["value"] != "2")
            assert row["status"] == ("ended early" if row["value"] == "2" else "complete")


@pytest.mark.parametrize(
    ("saves", "step"),
    [([10, 20, 30], 10), ([4, 8, 12, 17], 8), ([15, 30], 15), ([30], 30)],
)
def test_a_run_pauses_at_the_first_save_after_a_third(saves, step):
    assert pause_step(saves) == step


ARGUMENTS = ("epochs=2", "save_every=0.334", "study.seeds=2", "sampling.checkpoints=[]")
"""Eight steps, saved after 3, 5 and 8."""


def sweep(base: Path, person: Path, folder: Path, *arguments: str) -> CommandResult:
    small = [one for one in tiny_arguments(base, person) if not one.startswith(SMALLER)]
    others = [*small, *ARGUMENTS, "network.dim=2,4", "study.reuse_from=null"]
    return call("-m", *others, f"hydra.sweep.dir={folder}", *arguments, task=main)


SMALLER = tuple(f"{argument.partition('=')[0]}=" for argument in ARGUMENTS)


def facts(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        path.parent.relative_to(folder).as_posix(): json.loads(path.read_text("utf-8"))
        for path in folder.rglob("run.json")
    }


@pytest.fixture(scope="module")
def dim_two_is_worse():
    """Says of the tiny model, which learns nothing in eight steps, what the tests are about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "lora_lab.study.judge.early_end.worse_values", lambda sweep: {"2": EarlyEnd(3, 0.15)}
        )
        yield


@pytest.fixture(scope="module")
def ended(dim_two_is_worse, tiny_base, tiny_person, tmp_path_factory) -> Path:
    """A sweep of which dim 2 ended early."""
    folder = tmp_path_factory.mktemp("early") / "sweep"
    answer = sweep(tiny_base, tiny_person, folder, "study.early_end=true")
    assert answer.status == 0, answer.err
    return folder


BASE, WORSE = [f"base/seed={s}" for s in SEEDS[:2]], [f"network.dim=2/seed={s}" for s in SEEDS[:2]]


def test_what_is_worse_stays_at_a_third_with_its_lora(ended):
    runs = facts(ended)
    assert {name: runs[name]["status"] for name in runs} == {
        **dict.fromkeys(BASE, "complete"),
        **dict.fromkeys(WORSE, "ended early"),
    }
    listed = json.loads((ended / "sweep.json").read_text("utf-8"))["runs"]
    assert {one["name"]: (one["status"], one["error"]) for one in listed} == {
        name: (run["status"], None) for name, run in runs.items()
    }
    for name in WORSE:
        told = runs[name]["ended_early"]["reason"]
        assert told == "ended early at step 3: worse by 15 % in held-out loss"
        files = sorted(path.name for path in (ended / name / "lora").iterdir())
        assert files == ["lora-step00000003.safetensors"]
        assert (ended / name / "last.ckpt").is_file()
        assert len((ended / name / "metrics.csv").read_text("utf-8").splitlines()) == 1 + 3
    assert "ended early at step 3" in (ended / "report" / "report.md").read_text("utf-8")


def test_the_same_command_again_trains_nothing(ended, tiny_base, tiny_person, tmp_path):
    folder = tmp_path / "sweep"
    shutil.copytree(ended, folder)
    before = facts(folder)
    answer = sweep(tiny_base, tiny_person, folder, "study.early_end=true")
    assert answer.status == 0, answer.err
    assert facts(folder) == before


def test_without_the_option_it_goes_on_to_the_same_bytes(ended, tiny_base, tiny_person, tmp_path):
    folder, alone = tmp_path / "sweep", tmp_path / "alone"
    shutil.copytree(ended, folder)
    answer = sweep(tiny_base, tiny_person, folder, "study.early_end=false")
    assert answer.status == 0, answer.err
    runs = facts(folder)
    assert {run["status"] for run in runs.values()} == {"complete"}
    assert all("ended_early" not in run for run in runs.values())
    small = [one for one in tiny_arguments(tiny_base, tiny_person) if not one.startswith(SMALLER)]
    once = [*small, *ARGUMENTS, "network.dim=2", f"hydra.run.dir={alone}"]
    assert call(*once, task=main).status == 0
    for name in ("lora-step00000005", "lora"):
        mine = load_file(folder / WORSE[0] / "lora" / f"{name}.safetensors")
        theirs = load_file(alone / "lora" / f"{name}.safetensors")
        assert mine.keys() == theirs.keys()
        assert all(mine[key].equal(theirs[key]) for key in mine)
    mine, theirs = (without_seconds(one / "metrics.csv") for one in (folder / WORSE[0], alone))
    assert mine == theirs
    mine, theirs = (without_seconds(one / "held_out.csv") for one in (folder / WORSE[0], alone))
    more = [row for row in mine if row not in theirs]
    assert [row for row in mine if row in theirs] == theirs
    assert {row["step"] for row in more} == {"3"}  # what a verdict is asked of at the pause
    assert Counter(row["set"] for row in mine if row["step"] == "3")["held_out"] == 15


def without_seconds(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_a_run_that_was_killed_beyond_its_pause_is_judged_and_not_trained_to_it_again(
    ended, tiny_base, tiny_person, tmp_path
):
    """As a kill in the second leg leaves it: run.json says that it runs, and where it paused."""
    folder = tmp_path / "sweep"
    shutil.copytree(ended, folder)
    change(folder / WORSE[0] / "run.json", status="running", ended_early=None)
    before = (folder / WORSE[0] / "last.ckpt").stat().st_mtime_ns
    answer = sweep(tiny_base, tiny_person, folder, "study.early_end=true")
    assert answer.status == 0, answer.err
    assert facts(folder)[WORSE[0]]["status"] == "ended early"
    assert (folder / WORSE[0] / "last.ckpt").stat().st_mtime_ns == before


def test_a_single_run_stays_at_its_pause_until_it_may_go_on(tiny_base, tiny_person, tmp_path):
    """Also where the step's checkpoint is there and the kill came before run.json said so."""
    small = [one for one in tiny_arguments(tiny_base, tiny_person) if not one.startswith(SMALLER)]
    once = [*small, *ARGUMENTS, f"hydra.run.dir={tmp_path / 'run'}"]
    record, table = tmp_path / "run" / "run.json", tmp_path / "run" / "metrics.csv"
    assert call(*once, "study.pause=true", task=main).status == 0
    rows = table.read_text("utf-8")
    change(record, status="running", paused_at=None)
    assert call(*once, "study.pause=true", task=main).status == 0
    told = json.loads(record.read_text("utf-8"))
    assert (told["status"], told["paused_at"], told["total_steps"]) == ("paused", 3, 8)
    assert table.read_text("utf-8") == rows and len(rows.splitlines()) == 1 + 3
    assert call(*once, task=main).status == 0
    assert json.loads(record.read_text("utf-8"))["status"] == "complete"
    assert table.read_text("utf-8").startswith(rows)


def test_several_devices_pause_together(tiny_base, tiny_person, tmp_path):
    small = [one for one in tiny_arguments(tiny_base, tiny_person) if not one.startswith(SMALLER)]
    once = [*small, *ARGUMENTS, f"hydra.run.dir={tmp_path / 'run'}", "trainer.devices=2"]
    for argument, status in (("study.pause=true", "paused"), ("study.pause=false", "complete")):
        answer = call(*once, "trainer.accelerator=cpu", argument, task=main)
        assert answer.status == 0, answer.err
        assert json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))["status"] == status


@pytest.mark.parametrize(
    "launcher",
    [
        ("hydra/launcher=stacked", "hydra.launcher.within.n_jobs=1"),
        ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    ],
    ids=["stacked", "joblib"],
)
def test_launchers_pause_and_go_on(dim_two_is_worse, tiny_base, tiny_person, tmp_path, launcher):
    folder = tmp_path / "sweep"
    answer = sweep(tiny_base, tiny_person, folder, *launcher, "study.early_end=true")
    assert answer.status == 0, answer.err
    assert {name: run["status"] for name, run in facts(folder).items()} == {
        **dict.fromkeys(BASE, "complete"),
        **dict.fromkeys(WORSE, "ended early"),
    }


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("study.seeds=1", "study.seeds must be >= 2 with study.early_end=true, got 1"),
        ("save_every=0.6", "save_every must be <= 0.5 with study.early_end or study.pause, got"),
        ("study.pause=true", "study.pause=true is for a single run, a sweep sets it by itself"),
    ],
)
def test_what_cannot_end_early_is_refused(argument, message, tmp_path):
    answer = call("-m", "network.dim=2,4", "study.early_end=true", argument)
    assert answer.status == 2
    assert answer.errors[0].startswith(message)
