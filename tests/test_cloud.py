"""What is written for rented machines: SkyPilot reads it, our commands in it compose."""

import os
import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
TASKS = sorted((ROOT / "cloud").glob("*.yaml"))
ENVS = {
    "BUCKET": "my-loras",
    "NAME": "rank",
    "DATA": "my_person",
    "CHECKPOINT": "base.safetensors",
    "SWEEP": "network.dim=8,32",
    "SETTINGS": "epochs=50 logger=wandb",
}


def task(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_skypilot_reads_the_task(path):
    """With SkyPilot's own parser, offline; it isn't part of our environment."""
    sky = pytest.importorskip("sky")
    wanted = {name: value for name, value in ENVS.items() if name in task(path)["envs"]}
    read = sky.Task.from_yaml_config(task(path), env_overrides=list(wanted.items()))
    resources = next(iter(read.resources))
    assert resources.use_spot and resources.accelerators
    assert read.envs["CHECKPOINT"] == "base.safetensors"
    (storage,) = read.storage_mounts.values()
    assert storage.name == "my-loras" and storage.mode.name == "MOUNT_CACHED"


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_every_variable_of_the_commands_is_declared(path):
    config = task(path)
    used = set(re.findall(r"\$\{?([A-Z_]+)", config["run"] + str(config["file_mounts"])))
    assert used == set(config["envs"]) | set(config["secrets"])
    assert config["resources"]["use_spot"] is True


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_the_command_of_a_task_composes(path):
    pytest.importorskip("lora_lab")
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from lora_lab.config import TrainConfig
    from test_docs import compose_call

    text = task(path)["run"].replace("\\\n", " ")
    (line,) = [line for line in text.splitlines() if "train.py" in line]
    for name, value in ENVS.items():
        line = line.replace(f"${name}", value)
    words = shlex.split(line)
    compose_call("train", TrainConfig, words[words.index("train.py") + 1 :])
    assert OverridesParser.create().parse_overrides([w for w in words if "bucket/runs" in w])


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_the_dockerfile_copies_only_what_there_is_and_what_is_not_ignored():
    kept = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    ]
    for name, rest in instructions():
        if name == "COPY":
            *sources, _ = [word for word in rest.split() if not word.startswith("--")]
            for source in sources:
                assert (ROOT / source).exists(), source
                assert any(source == item or source.startswith(f"{item}/") for item in kept), source


def test_the_dockerfile_pins_its_base_and_runs_as_a_user_without_rights():
    found = instructions()
    assert re.fullmatch(r"python:3\.11[\w.-]*", dict(found)["FROM"])
    assert dict(found)["USER"] == "lab"
    names = [name for name, _ in found]
    assert names.index("USER") > max(i for i, name in enumerate(names) if name in ("RUN", "COPY"))
    installs = [rest for name, rest in found if name == "RUN" and "pip install" in rest]
    assert installs and all("-c constraints.txt" in rest for rest in installs)
    assert not any("sudo" in rest or "latest" in rest for _, rest in found)
    assert os.path.basename(dict(found)["WORKDIR"]) == "lab"
