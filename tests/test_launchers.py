"""Sweeps through each launcher that runs on one machine, for real, on the embedded model."""

import importlib
import json
import os
import re
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from command_line import call, tiny_arguments
from lora_lab.cli.image_jobs import image_job
from lora_lab.cli.stacked_launcher import StackLauncher
from settings import CONF, composed

ROOT = CONF.parent
LAUNCHERS = {
    "joblib": [],
    "submitit_local": ["hydra.sweeper.max_batch_size=2"],
    "ray": ["hydra.launcher.ray.init.num_cpus=2"],
}
STACKED_SWEEPS = {
    "stacked": [],
    "stacked_ray": ["hydra.launcher.within.ray.init.num_cpus=2", "hydra.launcher.stack=2"],
}
SWEEP = (
    *("network.dim=4", "network.dim=2,4", "epochs=1", "save_every=1.0", "trainer.threads=1"),
    *(
        "callbacks.progress=false",
        "sampling.steps=1",
        "data.repeats=1",
        "study.reuse_from=null",
        "study.seeds=2",
    ),
)
"""Two values, of which 4 is the base's: four runs of 8 steps."""
PLUGIN = {
    "joblib": "hydra_joblib_launcher",
    "submitit_local": "hydra_submitit_launcher",
    "submitit_slurm": "hydra_submitit_launcher",
    "ray": "hydra_ray_launcher",
}


def run_sweep(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    given = {argument.split("=")[0] for argument in arguments}
    others = [argument for argument in SWEEP if argument.split("=")[0] not in given]
    command = [sys.executable, "train.py", "-m", *others, f"hydra.sweep.dir={folder}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def sequential(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sequential") / "sweep"
    done = run_sweep(folder)
    assert done.returncode == 0, done.stderr
    return folder


def statuses(folder: Path) -> dict[str, str]:
    record = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    return {run["name"]: run["status"] for run in record["runs"]}


NOISE = re.compile("ConfigStore|[Ll]aunching|fontManager|Loading weights|#[0-9]+ :")
"""What Hydra, its launchers, matplotlib and transformers would say among our own lines."""


SHORT = {
    "joblib": ["study.seeds=1"],
    "submitit_local": ["study.seeds=1"],
    "ray": ["study.seeds=1", "hydra.launcher.ray.init.num_cpus=1"],
    "stacked": ["study.seeds=2", "hydra.launcher.within.n_jobs=2"],
}
"""The base and one value; with stacks, two seeds of each: two stacks of two in two processes."""


@pytest.mark.parametrize("name", SHORT)
def test_each_local_launcher_runs_a_sweep_and_lets_only_our_lines_through(
    name, tiny_base, tiny_person, tmp_path
):
    folder = tmp_path / "sweep"
    arguments = [*tiny_arguments(tiny_base, tiny_person), "network.dim=2,4", "sampling.grids=[]"]
    arguments = [one for one in arguments if not one.startswith("study.seeds=")]
    launcher = [f"hydra.sweep.dir={folder}", f"hydra/launcher={name}", *SHORT[name]]
    # matplotlib lists fonts for seconds, and says so; once is enough to see that it isn't shown.
    fonts = {"MPLCONFIGDIR": str(tmp_path / "no fonts listed yet")} if name == "joblib" else {}
    done = subprocess.run(
        [sys.executable, "train.py", "-m", *arguments, *launcher],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | fonts,
    )
    assert done.returncode == 0, done.stderr
    runs = 4 if name == "stacked" else 2
    assert set(statuses(folder).values()) == {"complete"} and len(statuses(folder)) == runs
    assert [line for line in done.stderr.splitlines() if NOISE.search(line)] == []
    sentence, path = done.stdout.splitlines()
    assert sentence.startswith(("dim ", "No verdict on ", "network.dim")) and sentence.endswith(".")
    assert path == str(folder / "report" / "index.html")


STARTS = """import os, sys
with open(os.environ["STARTS"], "a") as file:
    file.write("\\0".join(sys.orig_argv) + "\\n")
"""
"""Runs in each Python process before all else."""


@pytest.mark.parametrize(
    ("name", "runs"), [("joblib", 2), pytest.param("stacked", 4, marks=pytest.mark.slow)]
)
def test_a_worker_that_has_trained_draws_and_scores_without_starting_anew(
    name, runs, tiny_base, tiny_person, tmp_path
):
    """Two processes for all trainings and all jobs of images, which pay their imports once."""
    (tmp_path / "sitecustomize.py").write_text(STARTS)
    arguments = [*tiny_arguments(tiny_base, tiny_person), "network.dim=2,4", *SHORT[name]]
    arguments = [one for one in arguments if not one.startswith("study.seeds=")]
    folder = tmp_path / "sweep"
    seeds = f"study.seeds={runs // 2}"
    done = subprocess.run(
        [
            *(sys.executable, "train.py", "-m", *arguments, seeds),
            *(f"hydra.sweep.dir={folder}", f"hydra/launcher={name}"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "STARTS": str(tmp_path / "starts")},
    )
    assert done.returncode == 0, done.stderr
    assert set(statuses(folder).values()) == {"complete"} and len(statuses(folder)) == runs
    assert len(list(folder.rglob("images/*/*/*.png"))) >= runs, "drawn by jobs of their own"
    started = (tmp_path / "starts").read_text().splitlines()
    assert len([line for line in started if "popen_loky" in line]) == 2, started


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_gives_the_bytes_of_a_sequential_sweep(name, sequential, tmp_path):
    pytest.importorskip(f"hydra_plugins.{PLUGIN[name]}")
    done = run_sweep(tmp_path / "sweep", f"hydra/launcher={name}", *LAUNCHERS[name])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "sweep" / "report" / "index.html")
    assert statuses(tmp_path / "sweep") == statuses(sequential)
    files = sorted(path.relative_to(sequential) for path in sequential.rglob("lora/*.safetensors"))
    assert len(files) == 2 * len(statuses(sequential)) >= 6
    for file in files:
        one, other = load_file(sequential / file), load_file(tmp_path / "sweep" / file)
        assert one.keys() == other.keys()
        assert [key for key in one if not torch.equal(one[key], other[key])] == [], file


@pytest.mark.slow
@pytest.mark.parametrize("name", STACKED_SWEEPS)
def test_stacks_in_the_workers_of_a_launcher_give_the_loras_of_a_sequential_sweep(
    name, sequential, tmp_path
):
    done = run_sweep(tmp_path / "sweep", f"hydra/launcher={name}", *STACKED_SWEEPS[name])
    assert done.returncode == 0, done.stderr
    assert statuses(tmp_path / "sweep") == statuses(sequential)
    for file in sequential.rglob("lora/*.safetensors"):
        one = load_file(file)
        other = load_file(tmp_path / "sweep" / file.relative_to(sequential))
        largest = max(float(t.abs().max()) for k, t in one.items() if not k.endswith("alpha"))
        assert all((one[key] - other[key]).abs().max() <= 1e-4 * largest for key in one), file


@pytest.mark.slow
@pytest.mark.parametrize("name", ["joblib"])
def test_a_value_that_fails_elsewhere_is_told_with_its_cause(name, sequential, tmp_path):
    pytest.importorskip(f"hydra_plugins.{PLUGIN[name]}")
    folder = tmp_path / "sweep"
    done = run_sweep(folder, "data.batch_size=1000,2", f"hydra/launcher={name}", "network.dim=4")
    assert done.returncode == 1
    assert (
        "error: data.batch_size=1000/seed=1234 failed: data.batch_size must be at most"
        in done.stderr
    )
    assert statuses(folder)["data.batch_size=2/seed=1234"] == "complete"


class Workers:
    """In place of the launcher whose workers get the jobs."""

    def __init__(self) -> None:
        self.given: list[tuple[Any, ...]] = []

    def launch(self, jobs: list[list[str]], first: int) -> list[str]:
        self.given.append((jobs, first))
        return [f"done {job[0]}" for job in jobs]


def test_jobs_that_train_nothing_go_to_the_workers_one_by_one(monkeypatch):
    """A launcher of stacks sees by the task that there is nothing to stack."""
    workers, tasks = Workers(), []
    launcher = StackLauncher(2, OmegaConf.create({"_target_": "another.Launcher"}))
    monkeypatch.setattr(launcher, "_settings", lambda overrides: composed())
    monkeypatch.setattr(launcher, "_inner", lambda count, task: (tasks.append(task), workers)[1])
    launcher.setup(hydra_context=Mock(), task_function=image_job, config=OmegaConf.create({}))
    jobs = [["a"], ["b"], ["c"]]
    assert launcher.launch(jobs, 3) == ["done a", "done b", "done c"]
    assert workers.given == [(jobs, 3)] and tasks == [image_job]


STACKED = sorted((CONF / "hydra" / "launcher").glob("stacked*.yaml"))
PLUGINS_OWN = sorted({*(CONF / "hydra" / "launcher").glob("*.yaml")} - {*STACKED})


@pytest.mark.parametrize("path", STACKED)
def test_a_launcher_of_stacks_names_what_it_knows_and_whose_workers_it_uses(path):
    """`within` is a launcher of its own, named in the list of defaults."""
    settings = OmegaConf.load(path)
    keys = {*settings} - {"defaults", "_target_", "_recursive_"}
    assert keys | {"within"} == {"stack", "within"} == {*signature(StackLauncher).parameters}
    within = path.stem.removeprefix("stacked_").replace("stacked", "joblib")
    assert settings.defaults == [f"{within}@within", "_self_"]
    assert path.with_name(f"{within}.yaml").is_file()


@pytest.mark.parametrize("path", PLUGINS_OWN)
def test_a_launcher_names_only_what_its_plugin_knows(path):
    """Against the plugin's own dataclass, key by key."""
    module = pytest.importorskip(f"hydra_plugins.{PLUGIN[path.stem]}")
    names = {
        "joblib": ("config", "JobLibLauncherConf"),
        "submitit_local": ("config", "LocalQueueConf"),
        "submitit_slurm": ("config", "SlurmQueueConf"),
        "ray": ("_config", "RayLauncherConf"),
    }
    file, schema = names[path.stem]
    plugin = importlib.import_module(f"{module.__name__}.{file}")
    merged = OmegaConf.merge(OmegaConf.structured(getattr(plugin, schema)), OmegaConf.load(path))
    assert merged._target_ == OmegaConf.load(path)._target_


def test_a_launcher_without_its_package_names_the_next_step(
    tiny_base, tiny_person, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "hydra_plugins.hydra_ray_launcher.ray_launcher", None)
    arguments = [*tiny_arguments(tiny_base, tiny_person), f"hydra.sweep.dir={tmp_path / 'sweep'}"]
    answer = call("-m", *arguments, "network.dim=2,4", "hydra/launcher=ray")
    assert answer.status == 2 and not (tmp_path / "sweep").exists()
    assert answer.errors[0].startswith("hydra/launcher=ray needs a package that isn't installed")
    assert answer.errors[0].endswith("pip install -c constraints.txt -e '.[scale]'")
