"""Wrong arguments: status 2, one line each, nothing started, no folder made."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import CommandResult, call, tiny_arguments
from lora_lab.cli.task import Outcome
from lora_lab.errors import LabError, Stopped

ROOT = Path(__file__).resolve().parents[1]
OPTIMIZERS = sorted(path.stem for path in (ROOT / "conf" / "optimizer").glob("*.yaml"))


@pytest.fixture
def arguments(tiny_base, tiny_person, tmp_path, monkeypatch) -> list[str]:
    """Valid arguments, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tiny_arguments(tiny_base, tiny_person)


def test_each_wrong_argument_gets_a_line(arguments, tmp_path):
    wrong = ["network.dimm=3", "epochs=x", "optimizer=adam", "study=network_rank", "~seed"]
    answer = call(*arguments, *wrong)
    assert answer == CommandResult(2, "", answer.err)
    assert answer.errors == [
        "network.dimm is not a setting, got 3; did you mean network.dim?",
        "epochs must be a whole number, got x",
        f"optimizer must be one of {', '.join(OPTIMIZERS)}, got adam; did you mean adamw?",
        "study=network_rank is a ready-made config to add; write +study=network_rank",
        "~seed would remove a setting; every setting must have a value, set it instead",
    ]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("+network.dimm=3", "network.dimm is not a setting, got 3; did you mean network.dim?"),
        ("+network.dim=3", "network.dim is there already; leave out the +: network.dim=3"),
        ("network.dim=0", "network.dim must be >= 1, got 0"),
        ("network.dim=true", "network.dim must be a whole number, got true"),
        ("network.dim=1.5", "network.dim must be a whole number, got 1.5"),
        ("optimizer.betas=0.9", "optimizer.betas must be a list of numbers or null, got 0.9"),
        ("data.flip=maybe", "data.flip must be true or false, got maybe"),
        ("network=3", "network must be one of loha, lokr, lora, lora_conv, got 3"),
        ("logger=[csv,foo]", "logger must be one of csv, tensorboard, wandb, got foo"),
        ("foo.bar=1", "foo.bar is not a setting, got 1; see --help for all settings"),
        ("seed=[", """seed=[ cannot be read as key=value; put the value in quotes: seed="'['\""""),
        (
            "network.dim=2,8",
            "network.dim=2,8 names several values; add -m to sweep over them, "
            "or write a list: network.dim=[...]",
        ),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(arguments, tmp_path, argument, message):
    answer = call(*arguments, argument)
    assert (answer.status, answer.errors) == (2, [message])
    assert answer.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_section_is_not_a_setting(arguments):
    (line,) = call(*arguments, "trainer.foo=1", "sampling.prompts=3").errors[1:]
    assert line.startswith("sampling.prompts holds several settings, got 3; set one of sampling.")


@pytest.mark.parametrize("key", ["data.dir", "data.held_out_dir", "model.checkpoint"])
def test_a_missing_folder_is_told_before_anything_starts(arguments, tmp_path, key):
    answer = call(*arguments, f"{key}=not/there/yet")
    assert answer.errors == [f"{key}: not/there/yet does not exist; check the path"]
    assert answer.status == 2 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["data.dir", "data.held_out_dir", "data.reg_dir"])
def test_a_file_in_place_of_a_folder_is_told_before_anything_starts(arguments, tmp_path, key):
    path = tmp_path / "a\nb"
    path.write_text("x")
    answer = call(*arguments, f"{key}={path}")
    assert answer.errors == [f"{key}: {tmp_path / 'a b'} is a file; name a folder"]
    assert answer.status == 2 and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("key", ["model.checkpoint", "sampling.checkpoints"])
def test_a_repository_that_can_not_be_had_is_told_before_anything_starts(arguments, tmp_path, key):
    value = "owner/none" if key == "model.checkpoint" else "[owner/none]"
    answer = call("-m", *arguments, f"{key}={value}", "network.dim=2,4")
    assert answer.status == 2 and not list(tmp_path.iterdir())
    assert "owner/none is no file or folder here, and as the name of a repo" in answer.errors[0]


def test_an_unknown_embedded_part_is_told_with_those_there_are(arguments):
    (line,) = call(*arguments, "data.dir=embedded:nobody").errors
    assert line.startswith("data.dir: embedded:nobody does not ship with the project; it ships ")


def test_a_results_folder_that_is_a_file_is_refused(arguments, tmp_path):
    (tmp_path / "taken").write_text("mine")
    answer = call(*arguments, "hydra.run.dir=taken")
    assert answer.status == 2 and answer.errors[0].startswith("taken is a file; choose another")
    assert (tmp_path / "taken").read_text() == "mine"


def test_unknown_settings_of_hydra_are_told_without_a_traceback(arguments):
    answer = call(*arguments, "hydra.foo=1")
    assert (answer.status, answer.errors) == (2, ["Could not override 'hydra.foo'."])


@pytest.mark.parametrize(
    ("wrong", "beginning", "end"),
    [
        (
            ["hydra/launcher=stackd"],
            "hydra/launcher must be one of basic, joblib, ",
            ", got stackd; did you mean stacked?",
        ),
        (
            ["hydra/launcher=stacked", "hydra.launcher.stak=2"],
            "hydra.launcher.stak is not a setting of hydra/launcher=stacked, got 2; ",
            "did you mean hydra.launcher.stack?",
        ),
        (
            ["hydra/launcher=stacked", "hydra.launcher.within.jobs=2"],
            "hydra.launcher.within.jobs is not a setting of hydra/launcher=stacked, got 2; ",
            "did you mean hydra.launcher.within.n_jobs?",
        ),
        (
            ["hydra.launcher.stack=2"],
            "hydra.launcher.stack is not a setting of hydra/launcher=basic, got 2; ",
            "choose hydra/launcher=stacked, or stacked_ray, stacked_submitit_slurm",
        ),
        (
            ["hydra.launcher.foo=1"],
            "hydra.launcher.foo is not a setting of hydra/launcher=basic, got 1, which has none; ",
            "submitit_slurm",
        ),
    ],
)
def test_a_wrong_launcher_is_told_in_one_line(arguments, tmp_path, wrong, beginning, end):
    answer = call("-m", *arguments, "network.dim=2,4", *wrong)
    (line,) = answer.errors
    assert answer.status == 2 and line.startswith(beginning) and line.endswith(end)
    assert not list(tmp_path.iterdir())


def test_a_launchers_right_settings_are_no_problem_where_another_one_is(arguments):
    right = ["hydra/launcher=stacked_ray", "hydra.launcher.within.ray.init.address=auto"]
    answer = call("-m", *arguments, "network.dim=2,4", *right, "hydra.launcher.stack=2", "epochs=x")
    assert answer.errors == ["epochs must be a whole number, got x"]


def fail(config):
    raise LabError("photo.png is not an image; replace it")


def test_a_failed_run_ends_with_1(arguments):
    answer = call(*arguments, task=fail)
    assert (answer.status, answer.errors) == (1, ["photo.png is not an image; replace it"])


def test_a_failure_is_told_in_one_line_and_nothing_above_it(arguments):
    answer = call(*arguments, task=fail)
    assert answer.err.splitlines()[-1:] == ["error: photo.png is not an image; replace it"]
    assert "Error executing job" not in answer.err


def test_a_sweep_of_more_values_than_anybody_trains_is_refused(arguments, tmp_path):
    answer = call(*arguments, "seed=range(0,1000000000)", "-m")
    assert answer.status == 2 and answer.errors[0].startswith("seed has more than 1000 values")
    assert not list(tmp_path.iterdir())


def test_a_long_value_is_cut(arguments):
    answer = call(*arguments, f"output_name={'x' * 100_000}")
    assert answer.status == 2 and max(map(len, answer.err.splitlines())) < 1200


def test_a_traceback_is_shown_only_on_request(arguments):
    assert "Traceback" not in call(*arguments, task=fail).err
    assert "Traceback" in call(*arguments, "debug=true", task=fail).err


def test_an_unforeseen_error_is_told_in_one_line(arguments):
    def divide(config):
        return 1 / 0

    answer = call(*arguments, task=divide)
    assert answer.errors == ["ZeroDivisionError: division by zero; debug=true shows where"]
    assert answer.status == 1


def test_an_interrupt_ends_with_130_and_says_how_to_go_on(arguments):
    def interrupt(config):
        raise KeyboardInterrupt

    answer = call(*arguments, task=interrupt)
    assert answer.status == 130
    assert answer.errors == [
        "interrupted; the same command resumes at the last checkpoint, or starts again"
    ]


def test_a_run_that_saved_on_a_signal_says_that_it_goes_on_there(arguments):
    def stop(config):
        raise Stopped(signal.SIGINT, step=3)

    answer = call(*arguments, task=stop)
    assert answer.status == 130
    assert answer.errors == [
        "stopped by signal 2 after step 3; the same command with the same folder resumes it"
    ]


def test_sigterm_before_the_first_step_is_told(arguments):
    before = signal.getsignal(signal.SIGTERM)
    answer = call(*arguments, task=lambda config: os.kill(os.getpid(), signal.SIGTERM))
    assert answer.status == 143
    assert answer.errors[0].startswith("stopped by signal 15 before the first step; the same")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_that_went_well_ends_with_0_and_its_folder(arguments):
    outcome = Outcome("here")
    answer = call(*arguments, task=lambda config: outcome)
    assert answer.status == 0 and answer.out.splitlines()[-1].endswith("are in here")


def test_wrong_settings_are_refused_before_pytorch_is_imported():
    program = (
        "import sys; sys.argv = ['train.py', 'network.dim=0']\n"
        "import runpy\n"
        "try: runpy.run_path('train.py', run_name='__main__')\n"
        "except SystemExit as stop: status = stop.code\n"
        "heavy = {'torch', 'lightning', 'diffusers', 'transformers', 'peft', 'matplotlib'}\n"
        "sys.exit(f'{status} {sorted(heavy & set(sys.modules))}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines() == ["error: network.dim must be >= 1, got 0", "2 []"]
