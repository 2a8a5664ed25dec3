"""A real sweep on the tiny model: base runs, values, reuse, going on, what fails."""

import gc
import json
import os
import shutil
import signal
import weakref
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf
from safetensors.torch import load_file

from command_line import CommandResult, call, tiny_arguments
from lora_lab.cli.preflight import CheckBeforeRun
from lora_lab.cli.sweep_plan import MAX_NAME, folder_name
from lora_lab.cli.sweeper import ParameterSweeper
from lora_lab.run_folder.locks import LOCK, hold
from lora_lab.study.judge.rounds import Split
from train import main

CONF = Path(__file__).resolve().parents[1] / "conf"
OPTIMIZERS = sorted(path.stem for path in (CONF / "optimizer").glob("*.yaml"))


pytestmark = pytest.mark.usefixtures("one_figure")


@pytest.fixture(scope="module")
def arguments(tiny_base, tiny_person) -> list[str]:
    return tiny_arguments(tiny_base, tiny_person)


def sweep(*arguments: str) -> CommandResult:
    return call("-m", *arguments, task=main)


@pytest.fixture(scope="module")
def finished(arguments, tmp_path_factory) -> tuple[Path, CommandResult]:
    """A sweep over two values of which one is the base's."""
    folder = tmp_path_factory.mktemp("finished") / "sweep"
    answer = sweep(*arguments, "network.dim=2,4", f"hydra.sweep.dir={folder}")
    return folder, answer


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "sweep.json").read_text(encoding="utf-8"))


def tensor_files(folder: Path) -> dict[str, int]:
    """Final LoRA files and when they were written."""
    return {
        str(path.relative_to(folder).parents[1]): path.stat().st_mtime_ns
        for path in folder.rglob("lora/lora.safetensors")
    }


RUNS = [
    *("base/seed=1234", "base/seed=1235", "network.dim=2/seed=1234", "network.dim=2/seed=1235"),
]


def test_a_sweep_trains_base_and_other_values_under_the_same_seeds(finished):
    folder, answer = finished
    assert answer.status == 0, answer.err
    assert sorted(tensor_files(folder)) == RUNS
    runs = record(folder)["runs"]
    assert [(run["role"], run["seed"], run["value"]) for run in runs] == [
        ("base", 1234, "4"),
        ("value", 1234, "2"),
        ("base", 1235, "4"),
        ("value", 1235, "2"),
    ]
    assert record(folder)["seeds"] == [1234, 1235]
    assert {run["status"] for run in runs} == {"complete"}


def test_seeds_can_be_named_one_by_one(finished, arguments, tmp_path):
    folder = tmp_path / "sweep"
    shutil.copytree(finished[0], folder)
    answer = sweep(
        *arguments, "network.dim=2,4", "study.seeds=[1235,7]", f"hydra.sweep.dir={folder}"
    )
    assert answer.status == 0, answer.err
    runs = {run["name"]: run["reused"] for run in record(folder)["runs"]}
    assert runs == {
        "base/seed=1235": True,
        "network.dim=2/seed=1235": True,
        "base/seed=7": False,
        "network.dim=2/seed=7": False,
    }


def test_the_folders_of_earlier_sweeps_are_used_again(finished, arguments, tmp_path):
    folder = tmp_path / "sweep"
    shutil.copytree(finished[0], folder)
    for name, earlier in (("base", "base-2"), ("network.dim=2", "network.dim=2-b")):
        (folder / f"{name}/seed=1235").rename(folder / earlier)
        (folder / f"{name}/seed=1234").rename(tmp_path / "moved")
        (folder / name).rmdir()
        (tmp_path / "moved").rename(folder / name)
    answer = sweep(*arguments, "network.dim=2,4", f"hydra.sweep.dir={folder}")
    assert answer.status == 0, answer.err
    runs = {run["name"]: run for run in record(folder)["runs"]}
    assert list(sorted(runs)) == RUNS
    assert all(run["reused"] for run in runs.values())
    assert runs["base/seed=1234"]["folder"] == "base"


@pytest.mark.parametrize(
    ("swept", "line"),
    [
        ("seed=1,2", "seed=1,2 can't be swept: base and values are trained under the same seeds; "),
        ("study.seeds=1,2", "study.seeds=1,2 can't be swept: base and values are trained under"),
        ("study.margin=1,2", "study.margin=1,2 can't be swept: it says how a sweep is made"),
    ],
)
def test_a_sweep_over_seeds_is_refused_with_the_way_to_have_them(arguments, swept, line):
    plain = [item for item in arguments if not item.startswith("study.seeds")]
    answer = call("-m", *plain, swept)
    assert answer.status == 2 and answer.errors[0].startswith(line)


def test_the_old_name_of_the_seeds_is_refused_with_the_new_one(arguments):
    answer = call("-m", *arguments, "network.dim=2,4", "study.base_runs=3")
    assert answer.status == 2
    assert answer.errors == [
        "study.base_runs is not a setting, got 3; it is study.seeds now: base and values are "
        "trained under the same seeds"
    ]


def test_the_record_names_parameter_values_and_base_value(finished, arguments):
    facts = record(finished[0])
    assert (facts["parameter"], facts["values"], facts["base_value"]) == (
        "network.dim",
        ["2", "4"],
        "4",
    )
    assert facts["overrides"] == arguments


def test_the_last_lines_are_what_the_report_says_first_and_its_path(finished):
    folder, answer = finished
    heading = (folder / "report" / "report.md").read_text(encoding="utf-8").splitlines()[0]
    assert answer.out.splitlines()[-2] == heading.removeprefix("# ")
    assert answer.out.splitlines()[-1] == str(folder / "report" / "index.html")
    assert (folder / "report" / "index.html").is_file()


def test_a_run_folder_says_what_differs_from_the_base_config(finished):
    text = (finished[0] / "network.dim=2/seed=1234/overrides.yaml").read_text(encoding="utf-8")
    assert "- network.dim=2\n" in text


def test_an_interrupted_sweep_goes_on_where_it_stopped(finished, arguments, tmp_path):
    folder = tmp_path / "sweep"
    shutil.copytree(finished[0], folder)
    shutil.rmtree(folder / "base/seed=1235")
    before = tensor_files(folder)
    answer = sweep(*arguments, "network.dim=2,4", f"hydra.sweep.dir={folder}")
    assert answer.status == 0, answer.err
    after = tensor_files(folder)
    assert sorted(after) == RUNS
    assert {name: after[name] for name in before} == before
    reused = {run["name"]: run["reused"] for run in record(folder)["runs"]}
    assert reused == {name: name != "base/seed=1235" for name in RUNS}
    again = load_file(folder / "base/seed=1235/lora/lora.safetensors")
    first = load_file(finished[0] / "base/seed=1235/lora/lora.safetensors")
    assert again.keys() == first.keys()
    assert all(again[key].equal(first[key]) for key in first)


def test_a_folder_with_other_runs_is_refused_and_left_alone(finished, arguments):
    folder, _ = finished
    before = tensor_files(folder)
    answer = sweep(*arguments, "network.dim=2,4", "epochs=2", f"hydra.sweep.dir={folder}")
    assert answer.status == 2
    assert "holds a run with other settings (epochs: 1 → 2); choose another" in answer.errors[0]
    assert tensor_files(folder) == before


def test_a_single_run_never_replaces_another(finished, arguments):
    folder = finished[0] / "base/seed=1234"
    before = tensor_files(finished[0])
    answer = call(*arguments, "seed=9", f"hydra.run.dir='{folder}'", task=main)
    assert answer.status == 2
    assert answer.errors[0].startswith(f"{folder} holds a run with other settings")
    again = call(*arguments, f"hydra.run.dir='{folder}'", task=main)
    assert again.status == 0
    assert tensor_files(finished[0]) == before


def test_a_failing_value_does_not_stop_the_others(finished, arguments, tmp_path):
    folder = tmp_path / "sweep"
    shutil.copytree(finished[0], folder, ignore=shutil.ignore_patterns("sweep.json"))
    values = "data.batch_size=1000,2"
    answer = sweep(*arguments, values, f"hydra.sweep.dir={folder}")
    assert answer.status == 1
    assert any(line.startswith("data.batch_size=1000/seed=1234 failed: ") for line in answer.errors)
    status = {run["name"]: run["status"] for run in record(folder)["runs"]}
    assert status["data.batch_size=1000/seed=1235"] == "failed"
    assert status["data.batch_size=2/seed=1235"] == "complete"
    assert answer.out.splitlines()[-1].endswith("index.html")


def test_sweeps_in_one_folder_share_the_base(finished, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished[0], tmp_path / "runs" / "network.dim")
    answer = sweep(*arguments, "network.alpha=16,2")  # 16 is the base's own
    assert answer.status == 0, answer.err
    runs = {run["name"]: run for run in record(tmp_path / "runs/network.alpha")["runs"]}
    base = runs["base/seed=1234"]
    assert base["folder"] == "../network.dim/base/seed=1234" and base["reused"]
    assert sorted(os.listdir(tmp_path / "runs/network.alpha")) == [
        ".grids.lock",
        ".lock",
        "network.alpha=2",
        "report",
        "sweep.json",
    ]


def test_two_sweeps_never_write_into_one_folder(finished, arguments):
    folder, _ = finished
    with hold(folder / LOCK, "wait"):
        answer = sweep(*arguments, "network.dim=2,4", f"hydra.sweep.dir={folder}")
    assert answer.status == 1
    assert f"{folder} is in use by process {os.getpid()} on " in answer.errors[0]


class Breaking:
    """A launcher whose second job takes its worker with it, as a lack of memory does."""

    def launch(self, job_overrides, initial_job_idx):
        raise RuntimeError("a worker was killed\nby the system")


def test_a_broken_launcher_fails_its_values_and_the_report_is_made(
    finished, arguments, tmp_path, monkeypatch
):
    folder = tmp_path / "sweep"
    shutil.copytree(finished[0], folder, ignore=shutil.ignore_patterns("sweep.json", "*=2"))
    monkeypatch.setattr(ParameterSweeper, "_make_launcher", lambda self, task: Breaking())
    answer = sweep(*arguments, "network.dim=2,4", f"hydra.sweep.dir={folder}")
    assert answer.status == 1 and answer.out.splitlines()[-1].endswith("index.html")
    reason = (
        "network.dim=2/seed=1234 failed: the launcher broke off: RuntimeError: a worker was killed"
    )
    assert any(line.startswith(reason) for line in answer.errors)


@pytest.mark.parametrize(
    ("swept", "lines"),
    [
        (
            ["network.dim=8,abc,0"],
            [
                "network.dim must be a whole number, got abc",
                "network.dim must be >= 1, got 0",
            ],
        ),
        (["network.dimm=8,9"], ["network.dimm is not a setting, got 8; did you mean network.dim?"]),
        (["+network.dimm=8"], ["network.dimm is not a setting, got 8; did you mean network.dim?"]),
        (
            ["optimizer=adamw,foo"],
            [f"optimizer must be one of {', '.join(OPTIMIZERS)}, got foo"],
        ),
        (
            ["network.dim=2,8", "network.alpha=1,2"],
            [
                "a sweep over network.dim and network.alpha at once can't tell which of them made "
                "a difference; sweep one, or set study.several_parameters=true"
            ],
        ),
        (
            ["network.dim=2,8", "sampling.checkpoints=[not/there/yet]"],
            ["sampling.checkpoints: not/there/yet does not exist; check the path"],
        ),
    ],
)
def test_every_job_is_checked_before_the_first_starts(
    arguments, tmp_path, monkeypatch, swept, lines
):
    monkeypatch.chdir(tmp_path)
    several = swept if any("," in item for item in swept) else [*swept, "network.dim=2,8"]
    answer = call("-m", *arguments, *several)
    assert answer.status == 2
    assert answer.errors[: len(lines)] == lines
    assert not list(tmp_path.iterdir())


def test_a_sweep_without_several_values_is_refused(arguments):
    answer = call("-m", *arguments)
    assert answer.status == 2 and answer.errors[0].startswith("-m needs a parameter with several")


@pytest.mark.parametrize(
    "value", ["../../etc/passwd", "/abs/path", "a\\b", "..", "con\n", "x" * 500, "'../q'", "ñ/字"]
)
def test_no_value_leaves_the_sweep_folder(value):
    name = folder_name([f"model.checkpoint={value}"])
    assert name.startswith("model.checkpoint=") or name == "model.checkpoint"
    assert "/" not in name and "\\" not in name and 0 < len(name) <= MAX_NAME
    assert Path("sweep", name).parent == Path("sweep")


def test_undecided_values_get_more_seeds_and_decided_ones_do_not(
    finished, arguments, tmp_path, monkeypatch
):
    folder = tmp_path / "sweep"
    shutil.copytree(finished[0], folder)
    looks = iter([Split({"2": "undecided"}, {"3": "worse"}), Split({}, {"2": "worse"})])
    monkeypatch.setattr("lora_lab.study.judge.rounds.split_values", lambda study, most: next(looks))
    more = ("network.dim=2,3,4", "study.max_seeds=4", f"hydra.sweep.dir={folder}")
    answer = sweep(*arguments, *more)
    assert answer.status == 0, answer.err
    seeds: dict[str, list[int]] = {}
    for run in record(folder)["runs"]:
        seeds.setdefault(run["value"], []).append(run["seed"])
    planned = [1234, 1235]
    assert seeds == {"4": [*planned, 1236, 1237], "2": [*planned, 1236, 1237], "3": planned}
    (first,) = record(folder)["rounds"]
    assert first == {
        "look": 2,
        "seeds": [1236, 1237],
        "open": {"2": "undecided"},
        "closed": {"3": "worse"},
    }


def test_no_run_leaves_its_signal_handler_which_would_keep_its_trainer(finished):
    assert "lightning" not in type(signal.getsignal(signal.SIGTERM)).__module__


def test_a_job_that_ended_leaves_no_configs_and_no_cycles():
    class Trainer:
        own: object = None

    held = Trainer()
    held.own = held
    alive, job = weakref.ref(held), JobReturn(cfg=OmegaConf.create(), hydra_cfg=OmegaConf.create())
    gc.disable()
    try:
        del held
        assert alive() is not None
        CheckBeforeRun().on_job_end(OmegaConf.create(), job)
    finally:
        gc.enable()
    assert alive() is None and job.cfg is None and job.hydra_cfg is None
