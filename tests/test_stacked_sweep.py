"""Sweeps with hydra/launcher=stacked, on the tiny model, in this process."""

import json
import logging
import threading
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from safetensors.torch import load_file

from command_line import CommandResult, call, tiny_arguments
from lora_lab.cli.stacked_launcher import _end_log, _log_beside_others
from lora_lab.cli.sweeper import _launcher_overrides
from train import main

HERE = ("hydra/launcher=stacked", "hydra.launcher.within.n_jobs=1")


pytestmark = pytest.mark.usefixtures("one_figure")


def sweep(base: Path, person: Path, folder: Path, *arguments: str) -> CommandResult:
    others = [*tiny_arguments(base, person), f"hydra.sweep.dir={folder}", "study.reuse_from=null"]
    return call("-m", *others, *arguments, task=main)


def facts(folder: Path) -> dict[str, dict]:
    return {
        path.parent.relative_to(folder).as_posix(): json.loads(path.read_text(encoding="utf-8"))
        for path in folder.rglob("run.json")
    }


def assert_same_loras(one: Path, other: Path) -> None:
    """Up to 1e-4 of the largest entry."""
    mine, theirs = load_file(one), load_file(other)
    assert mine.keys() == theirs.keys()
    largest = max(float(t.abs().max()) for k, t in mine.items() if not k.endswith("alpha"))
    for key, tensor in mine.items():
        assert (tensor - theirs[key]).abs().max() <= 1e-4 * largest, key


@pytest.fixture(scope="module")
def sequential(tmp_path_factory, tiny_base, tiny_person) -> Path:
    folder = tmp_path_factory.mktemp("sequential") / "sweep"
    answer = sweep(tiny_base, tiny_person, folder, "network.dim=2,4")
    assert answer.status == 0, answer.err
    return folder


def test_a_stacked_sweep_leaves_what_a_sequential_one_does(
    sequential, tiny_base, tiny_person, tmp_path
):
    folder = tmp_path / "sweep"
    answer = sweep(tiny_base, tiny_person, folder, "network.dim=2,4", *HERE)
    assert answer.status == 0, answer.err
    runs = facts(folder)
    assert {one["status"] for one in runs.values()} == {"complete"}
    assert json.loads((folder / "sweep.json").read_text("utf-8"))["launcher"] == list(HERE)
    assert {one["stack"]["runs"] for one in runs.values()} == {4}
    assert all("stack" not in one for one in facts(sequential).values())
    files = {path.relative_to(sequential) for path in sequential.glob("*/**/*")}
    assert files == {path.relative_to(folder) for path in folder.glob("*/**/*")}
    for path in sequential.rglob("lora/*.safetensors"):
        assert_same_loras(path, folder / path.relative_to(sequential))
    for name in runs:
        log = (folder / name / "train.log").read_text(encoding="utf-8")
        assert f"{folder / name / 'lora'}" in log
        assert not any(f"{folder / other / 'lora'}" in log for other in runs if other != name)


def test_what_a_run_of_a_stack_logs_has_its_name_on_the_terminal_and_not_in_its_file(tmp_path):
    said: dict[str, str] = {}
    trained = {name: threading.Event() for name in ("dim=2", "dim=4")}
    ended = threading.Event()

    def train_one(name: str) -> None:
        runtime = {"output_dir": str(tmp_path / name)}
        formatter = {"class": "lora_lab.cli.log_lines.LineFormatter", "format": "%(message)s"}
        console = {"class": "logging.StreamHandler", "formatter": "line"}
        file = {
            "class": "logging.FileHandler",
            "formatter": "line",
            "filename": "${hydra.runtime.output_dir}/train.log",
        }
        log = {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": formatter},
            "handlers": {"console": console, "file": file},
            "root": {"level": "INFO", "handlers": ["console", "file"]},
        }
        sweep = {"dir": str(tmp_path), "subdir": name}
        hydra = {"runtime": runtime, "sweep": sweep, "job_logging": log, "verbose": False}
        _log_beside_others(OmegaConf.create({"hydra": hydra}))
        logging.getLogger("lora_lab").info("step 3/60\nDLR")
        record = logging.makeLogRecord({"msg": "step 3/60\nDLR", "thread": threading.get_ident()})
        console_handler = next(
            one for one in logging.getLogger().handlers if type(one) is logging.StreamHandler
        )
        said[name] = console_handler.format(record)
        trained[name].set()
        ended.wait(60)

    root = logging.getLogger()
    before = list(root.handlers)
    try:
        for name, event in trained.items():
            threading.Thread(target=train_one, args=(name,), daemon=True).start()
            assert event.wait(60)
    finally:
        ended.set()
        for handler in set(root.handlers) - set(before):
            handler.close()
        root.handlers[:] = before
    for name in ("dim=2", "dim=4"):
        assert said[name] == f"{name}: step 3/60 DLR"
        assert (tmp_path / name / "train.log").read_text("utf-8").splitlines() == ["step 3/60 DLR"]


def test_the_log_of_a_run_that_ended_takes_nothing_of_a_later_thread_of_its_number(tmp_path):
    log = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "file": {
                "class": "logging.FileHandler",
                "filename": "${hydra.runtime.output_dir}/train.log",
            }
        },
        "root": {"level": "INFO", "handlers": ["file"]},
    }
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        for name in ("dim=2", "dim=4"):  # one thread, one after the other
            runtime = {"output_dir": str(tmp_path / name)}
            sweep = {"dir": str(tmp_path), "subdir": name}
            hydra = {"runtime": runtime, "sweep": sweep, "job_logging": log, "verbose": False}
            _log_beside_others(OmegaConf.create({"hydra": hydra}))
            logging.getLogger("lora_lab").info("of %s", name)
            _end_log()
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    for name in ("dim=2", "dim=4"):
        assert (tmp_path / name / "train.log").read_text("utf-8") == f"of {name}\n"


def test_of_the_command_line_the_launchers_part_is_recorded():
    given = ["hydra.sweep.dir=x", *HERE, "hydra.mode=MULTIRUN"]
    config = OmegaConf.create({"hydra": {"overrides": {"hydra": given}}})
    assert _launcher_overrides(config) == HERE


def test_a_value_that_fails_leaves_the_others_as_they_are(
    sequential, tiny_base, tiny_person, tmp_path
):
    """The first step's gradient isn't finite with an offset beyond 32 bits."""
    folder = tmp_path / "sweep"
    swept = "objective.noise_offset=0.0,1e38"
    answer = sweep(tiny_base, tiny_person, folder, swept, *HERE)
    assert answer.status == 1
    assert [line for line in answer.errors if "is not finite" in line]
    runs = facts(folder)
    assert {name: one["status"] for name, one in runs.items()} == {
        "base/seed=1234": "complete",
        "base/seed=1235": "complete",
        "objective.noise_offset=1e+38/seed=1234": "failed",
        "objective.noise_offset=1e+38/seed=1235": "failed",
    }
    for name in ("base/seed=1234", "base/seed=1235"):
        assert_same_loras(
            sequential / name / "lora" / "lora.safetensors",
            folder / name / "lora" / "lora.safetensors",
        )


def test_runs_that_cannot_be_stacked_are_told_and_trained(tiny_base, tiny_person, tmp_path, caplog):
    folder = tmp_path / "sweep"
    with caplog.at_level("INFO"):
        answer = sweep(tiny_base, tiny_person, folder, "data.batch_size=3,4", *HERE)
    assert answer.status == 0, answer.err
    assert "stacks are kept apart by data.batch_size" in answer.err + caplog.text
    runs = facts(folder)
    assert {one["stack"]["runs"] for one in runs.values()} == {2}


@pytest.mark.parametrize("value", ["0", "-1"])
def test_a_stack_of_none_is_refused(value, tiny_base, tiny_person, tmp_path):
    folder = tmp_path / "sweep"
    given = (*HERE, f"hydra.launcher.stack={value}")
    answer = sweep(tiny_base, tiny_person, folder, "network.dim=2,4", *given)
    assert answer.status == 2 and not folder.exists()
    assert answer.errors == [
        f"hydra.launcher.stack must be >= 1, or null for as many as fit, got {value}"
    ]
