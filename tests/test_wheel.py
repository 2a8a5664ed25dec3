"""The wheel in a fresh environment: both commands, our config files and the user's own."""

import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from command_line import call

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("src", "conf", "train.py", "sample.py", "pyproject.toml", "README.md", "LICENSE")
"""What a wheel is built from."""


def output(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_poisoned_releases_of_lightning_are_not_installed():
    """GHSA-w37p-236h-pfx3: 2.6.2 and 2.6.3 steal credentials."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {(one := Requirement(text)).name: one for text in project["dependencies"]}["lightning"]
    assert not any(wanted.specifier.contains(version) for version in ("2.6.2", "2.6.3"))
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (version,) = re.findall(r"^lightning==(.+)$", pinned, re.MULTILINE)
    assert wanted.specifier.contains(version) and wanted.specifier.contains("2.6.1")


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """The folder of commands of an environment that has the wheel and the libraries of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in PARTS:
        if (ROOT / name).is_dir():
            unwanted = shutil.ignore_patterns("*.egg-info", "__pycache__")
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    output(
        *(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source),
        folder=folder,
    )
    venv.create(folder / "env", symlinks=True)
    binaries = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin")
    wheel = next(folder.glob("*.whl"))
    python = binaries / Path(sys.executable).name
    output(*pip, "--python", python, "install", "--no-deps", wheel, folder=folder)
    purelib = output(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder
    )
    libraries = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (Path(purelib.strip()) / "libraries.pth").write_text("\n".join(libraries), encoding="utf-8")
    return binaries


def test_an_installed_wheel_composes_a_run_with_the_users_own_files(programs, tmp_path):
    own = tmp_path / "conf" / "experiment" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# @package _global_\nnetwork:\n  dim: 3\n", encoding="utf-8")
    train = programs / "lora-lab-train"
    composed = yaml.safe_load(output(train, "+experiment=mine", "--cfg", "job", folder=tmp_path))
    assert composed["network"]["dim"] == 3 and composed["model"]["name"] == "pocket"
    where = "import lora_lab; print(lora_lab.__file__)"
    package = Path(output(programs / "python", "-c", where, folder=tmp_path).strip()).parent
    assert package.is_relative_to(programs.parent)  # not the sources of this checkout
    assert (package / "pocket" / "models" / "pocket" / "unet" / "config.json").is_file()


def test_an_installed_wheel_has_both_commands(programs, tmp_path):
    assert "+experiment" not in output(programs / "lora-lab-train", "--help", folder=tmp_path)
    assert "study=network_rank" in output(programs / "lora-lab-train", "--help", folder=tmp_path)
    assert "sampling:" in output(programs / "lora-lab-sample", "--help", folder=tmp_path)


def test_help_lists_the_users_own_files(tmp_path, monkeypatch):
    own = tmp_path / "conf" / "experiment" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# @package _global_\nseed: 7\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    answer = call("--help", "+experiment=mine")
    assert "  experiment=mine            mine\n" in answer.out
    assert "seed = 7" in answer.out


def test_an_own_file_with_the_name_of_one_that_ships_is_refused(tmp_path, monkeypatch):
    own = tmp_path / "conf" / "optimizer" / "adamw.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("lr: 1.0\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    answer = call("optimizer=adamw")
    assert answer.status == 2
    assert answer.errors == [
        "conf/optimizer/adamw.yaml has the name of a config file that ships with LoRA Lab, which "
        "is read in its place: give it another name"
    ]
