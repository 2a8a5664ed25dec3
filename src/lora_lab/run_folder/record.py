"""A run folder: what was asked for, what went in, how it ended, and whether it can be reused."""

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lora_lab.config import TrainConfig
from lora_lab.errors import LabError
from lora_lab.files import atomic_path, make_folder, sha256_file, write_json, write_text

PACKAGE = Path(__file__).resolve().parents[1]
RUNNING, COMPLETE, FAILED = "running", "complete", "failed"
LIBRARIES = (
    *("torch", "lightning", "diffusers", "transformers", "peft", "dadaptation", "numpy"),
    *("safetensors", "pillow"),
)
"""Whose versions are recorded; another version of one of them is another run."""
WITHOUT_INFLUENCE = (
    *("logger", "sampling", "metrics", "study", "resume", "overwrite", "debug", "data_report"),
    *("callbacks.progress", "callbacks.keep_last_checkpoint", "callbacks.samples"),
    *("data.dir", "data.held_out_dir", "data.reg_dir", "data.cache_dir"),
    *("model.checkpoint", "model.allow_pickle", "model.merge", "network.weights"),
)
"""Settings that don't change a LoRA; what lies at a path counts by its fingerprint instead."""
TRAINING_SOURCES = (
    *("checkpoint", "data", "lora_file", "network", "objective", "optimizers", "prompts", "text"),
    *("randomness", "training/acceleration", "training/inputs", "training/module"),
    *("training/noising", "training/run", "training/trainer"),
    *("training/callbacks/held_out_loss", "training/callbacks/lora_export"),
    *("training/callbacks/dlr", "training/callbacks/nan_guard"),
    "training/callbacks/metrics_csv",
)
"""Modules and packages of this package on which the bytes of a LoRA or its metrics depend."""


IDENTITY = ("versions", "git_commit", "code", "fingerprints", "reuse_key")
"""What run.json says of what a run is made of."""


class RunFolder:
    """Writes run.json and config.yaml; run.json is whole at any time.

    Args:
        path: The folder; made if there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = make_folder(path)
        self.facts: dict[str, Any] = {}
        self._before: dict[str, bytes] = {}

    def begin(
        self, config: TrainConfig, earlier: dict[str, Any] | None, overrides: str | None = None
    ) -> None:
        """Record what is asked for and that it has begun.

        Args:
            config: The run's settings.
            earlier: What run.json said before; its identity stays until this run has its own,
                because it tells what a checkpoint in the folder belongs to.
            overrides: Text of overrides.yaml; None writes none.

        Raises:
            LabError: The folder isn't writable.
        """
        self._before = {
            name: path.read_bytes()
            for name in ("config.yaml", "overrides.yaml", "run.json")
            if (path := self.path / name).is_file()
        }
        write_text(self.path / "config.yaml", config_text(config))
        if overrides is not None:
            write_text(self.path / "overrides.yaml", overrides)
        own = {"versions": versions(), "git_commit": git_commit(), "reuse_key": None}
        self.facts = {
            "status": RUNNING,
            "error": None,
            "seed": config.seed,
            "config_key": config_key(config),
            **own,
            **{name: earlier[name] for name in IDENTITY if earlier and name in earlier},
        }
        self.write()

    def identify(self, fingerprints: dict[str, str], key: str) -> None:
        """Record what the run is made of, now that it is known to be this run."""
        self.write(
            versions=versions(),
            git_commit=git_commit(),
            code=code_version(),
            fingerprints=fingerprints,
            reuse_key=key,
        )

    def restore(self) -> None:
        """Leave the folder's run as it was found."""
        for name, content in self._before.items():
            with atomic_path(self.path / name) as temporary:
                temporary.write_bytes(content)

    def write(self, **facts: Any) -> None:
        """Add facts to run.json."""
        self.facts |= facts
        write_json(self.path / "run.json", self.facts)

    def fail(self, error: BaseException) -> None:
        """Record why the run ended; what can't be recorded doesn't hide the error itself."""
        text = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        try:
            self.write(status=FAILED, error=" ".join(text.split()))
        except LabError:
            return  # the disk is full or the folder gone: that is the error that is being told


def read_facts(run_dir: Path) -> dict[str, Any] | None:
    """What run.json says; None when there is none that can be read."""
    try:
        facts = json.loads((run_dir / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def config_text(config: TrainConfig) -> str:
    """The resolved config as YAML."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def config_key(config: TrainConfig) -> str:
    """64 hex digits over the settings that have an influence on the LoRA or its metrics."""
    values = dataclasses.asdict(config)
    for name in WITHOUT_INFLUENCE:
        *sections, key = name.split(".")
        node = values
        for section in sections:
            node = node[section]
        del node[key]
    if config.network.weights is not None:
        values["network"]["weights"] = sha256_file(Path(config.network.weights).expanduser())
    return _digest(values)


def influential(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings that have an influence, flat: ``network.dim`` -> value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in WITHOUT_INFLUENCE:
            continue
        found |= influential(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def reuse_key(config: TrainConfig, fingerprints: dict[str, str]) -> str:
    """64 hex digits that two runs share if they must give the same LoRA.

    Args:
        config: The run's settings.
        fingerprints: Of images, captions, checkpoint and vae.
    """
    inputs = {name: fingerprints[name] for name in ("images", "captions", "checkpoint", "vae")}
    return _digest([config_key(config), inputs, code_version(), versions()])


@cache
def code_version() -> str:
    """64 hex digits over the sources that training depends on."""
    digest = hashlib.sha256()
    root = PACKAGE
    for path in training_files():
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()


def training_files() -> list[Path]:
    """The files behind ``TRAINING_SOURCES``: of a package, each of its modules."""
    files: list[Path] = []
    for name in TRAINING_SOURCES:
        path = PACKAGE / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    return files


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that take part in training."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "unknown"
    return found


@cache
def git_commit() -> str | None:
    """The commit of this project's checkout, with ``+`` if files differ; None outside of one."""
    folder = PACKAGE
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", str(folder))
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    answer = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=5,
    )
    return answer.stdout.strip()


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
