"""How commands end: signals and unforeseen errors in one line, with the status that shells know."""

import logging
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lora_lab.cli.ending import ended_by_signals, run_plain
from lora_lab.cli.log_lines import LineFormatter
from lora_lab.cli.sweeper import _launch_batch
from lora_lab.errors import ConfigError, LabError, Stopped
from lora_lab.study.__main__ import main as study
from reliability import process

SOURCE = Path(__file__).parents[1] / "src"


@pytest.fixture(autouse=True)
def heard():
    """Ctrl-C is heard, also where the tests run in the background of a script, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def swallow(number: int) -> None:
    """A library that turns what a signal raises into an error of its own."""
    try:
        os.kill(os.getpid(), number)
    except KeyboardInterrupt as stop:
        raise OSError("could not read the file") from stop


@pytest.mark.parametrize(
    ("number", "status", "line"),
    [
        (signal.SIGINT, 130, "interrupted; the same command resumes at the last checkpoint, or "),
        (signal.SIGTERM, 143, "stopped by signal 15 before the first step; the same command "),
    ],
)
@pytest.mark.parametrize("swallowed", [False, True])
def test_a_signal_ends_a_command_with_one_line(capsys, number, status, line, swallowed):
    def work() -> int:
        swallow(number) if swallowed else os.kill(os.getpid(), number)
        return 0

    before = signal.getsignal(signal.SIGINT)
    assert run_plain(work) == status
    err = capsys.readouterr().err
    assert err.startswith(f"error: {line}") and err.count("\n") == 1
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_while_a_study_reads_a_file_ends_with_130(tmp_path, monkeypatch, capsys):
    from lora_lab.metrics import sweep_images

    monkeypatch.setattr(sweep_images, "draw_for_study", lambda *_: swallow(signal.SIGINT))
    assert run_plain(lambda: study([str(tmp_path), "--metrics"])) == 130
    assert capsys.readouterr().err.count("\n") == 1


def test_ctrl_c_that_a_launcher_turns_into_an_error_ends_the_sweep():
    class Broken:
        def launch(self, jobs, initial_job_idx):
            swallow(signal.SIGINT)

    with ended_by_signals(), pytest.raises(KeyboardInterrupt):
        _launch_batch(Broken(), [["a=1"]], 0)


def test_a_launcher_that_breaks_by_itself_is_the_reason_of_its_jobs():
    class Broken:
        def launch(self, jobs, initial_job_idx):
            raise OSError("no worker")

    with ended_by_signals():
        assert _launch_batch(Broken(), [["a=1"]], 0) == ["OSError: no worker"]


def test_ctrl_c_stays_ignored_where_it_was(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run_plain(lambda: os.kill(os.getpid(), signal.SIGINT) or 0) == 0
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("debug", [False, True])
def test_an_unforeseen_error_is_one_line_and_its_traceback_is_shown_on_request(
    capsys, monkeypatch, debug
):
    monkeypatch.setattr(sys, "argv", ["x", "--debug"] if debug else ["x"])

    def divide() -> int:
        return 1 // 0

    assert run_plain(divide) == 1
    err = capsys.readouterr().err
    assert ("Traceback" in err) is debug
    assert err.splitlines()[-1].startswith("error: ZeroDivisionError: integer division")
    assert err.endswith("--debug shows where\n") is not debug


def test_a_torture_that_a_script_started_in_its_background_can_send_ctrl_c(tmp_path, monkeypatch):
    monkeypatch.setitem(
        process.SCRIPTS, "wait", ["-c", "import time; print('up', flush=True); time.sleep(600)"]
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        running = process.Running("wait", [], tmp_path / "log", forked=False)
        assert running.wait_until(lambda _: (tmp_path / "log").read_bytes() == b"up\n", 60)
        running.strike(signal.SIGINT)
        assert running.finish(60) == -signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_log_line_is_one_line_whatever_a_folder_is_called():
    record = logging.LogRecord(
        "a", logging.INFO, "", 0, "  %s: 3 images", ("one\ntwo\x1b[31m",), None
    )
    assert LineFormatter("%(message)s").format(record) == "  one two?[31m: 3 images"


def test_an_error_is_a_line_for_each_problem_whatever_a_file_is_called():
    assert str(LabError("a\nb\u2028c is missing")) == "a b c is missing"
    assert str(ConfigError("one\nname", "two")) == "one name\ntwo"


def test_a_path_whose_bytes_are_no_text_is_printed_as_it_is():
    code = (
        "import sys; from lora_lab.cli.ending import run_plain;"
        "sys.exit(run_plain(lambda: print(sys.argv[1]) or 0))"
    )
    name = os.fsdecode(b"a\xff")
    env = {**os.environ, "PYTHONIOENCODING": "utf-8:strict", "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", code, name], env=env, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"a\xff\n")


def test_errors_come_out_of_a_workers_process_as_they_went_in():
    stopped = pickle.loads(pickle.dumps(Stopped(signal.SIGTERM, step=3)))
    assert (stopped.number, stopped.step) == (signal.SIGTERM, 3)
    assert str(stopped) == "stopped by signal 15 after step 3"
    assert str(pickle.loads(pickle.dumps(ConfigError("one", "two")))) == "one\ntwo"
