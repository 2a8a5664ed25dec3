"""What decides the bytes of a LoRA: settings, inputs, sources, packages, hardware.

Two runs that share all of it give the same LoRA. What can be found out by itself is not listed
here: sources and packages are those that `training/` imports, read from the files themselves.
"""

import ast
import dataclasses
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from lora_lab.config import TrainConfig
from lora_lab.files import sha256_file

PACKAGE = Path(__file__).resolve().parents[1]
ENTRY = "training"
"""The folder whose imports are followed."""
WITHOUT_INFLUENCE = (
    *("logger", "sampling", "metrics", "study", "resume", "overwrite", "debug", "data_report"),
    *("callbacks.progress", "callbacks.keep_last_checkpoint", "callbacks.samples"),
    *("data.dir", "data.held_out_dir", "data.reg_dir", "data.cache_dir"),
    *("model.checkpoint", "model.allow_pickle", "model.merge"),
)
"""Settings that don't change a LoRA; what lies at a path counts by its fingerprint instead.

Reuse, resuming and the comparison of runs all go by this list.
"""
OBSERVERS = (
    *("loggers", "sampling", "images", "run_folder", "training/forecast"),
    *("training/callbacks/cost", "training/callbacks/estimate", "training/callbacks/progress"),
    *("training/callbacks/pause", "training/callbacks/samples", "training/callbacks/stop"),
)
"""Sources that only watch a training; whatever else it imports counts, new files too."""


def influential(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings that have an influence, flat: ``network.dim`` -> value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in WITHOUT_INFLUENCE:
            continue
        found |= influential(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def config_key(config: TrainConfig) -> str:
    """64 hex digits over the settings that have an influence on the LoRA or its metrics."""
    values = influential(dataclasses.asdict(config))
    if config.network.weights is not None:
        values["network.weights"] = sha256_file(Path(config.network.weights).expanduser())
    return _digest(values)


def reuse_key(config: TrainConfig, fingerprints: dict[str, str]) -> str:
    """64 hex digits that are equal for two runs only if they give the same LoRA.

    Args:
        config: The run's settings.
        fingerprints: Of images, captions, checkpoint and vae.
    """
    inputs = {name: fingerprints[name] for name in ("images", "captions", "checkpoint", "vae")}
    return _digest([config_key(config), inputs, code_version(), versions(config), hardware(config)])


def hardware(config: TrainConfig) -> str:
    """What computes: the name of the GPU, or the CPU's instruction set, which sums depend on."""
    import torch

    accelerator = config.trainer.accelerator
    if accelerator in ("auto", "gpu") and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if accelerator in ("auto", "mps") and torch.backends.mps.is_available():
        return "mps"
    return f"cpu {torch.backends.cpu.get_cpu_capability()}"


@cache
def code_version() -> str:
    """64 hex digits over the sources that training depends on."""
    digest = hashlib.sha256()
    for path in training_files():
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()


def training_files() -> list[Path]:
    """The files of this package that training imports, directly or not, without observers."""
    return sorted(_graph())


def versions(config: TrainConfig) -> dict[str, str]:
    """Versions of Python and of the installed packages that take part in a training.

    Those are what the sources import at their top, and what the settings ask for.
    """
    from lora_lab.optimizers.classes import entry_of

    modules = set().union(*_graph().values())
    modules.add(entry_of(config.optimizer).path.partition(".")[0])
    if config.network.dora or config.network.name in ("loha", "lokr"):
        modules.add("lycoris")
    if config.trainer.attention == "xformers":
        modules.add("xformers")
    found = {"python": platform.python_version()}
    for name in sorted({name for module in modules for name in _distributions().get(module, ())}):
        found[name.lower()] = _version(name)
    return found


@cache
def _version(package: str) -> str:
    """Of an installed package; reading all of them takes longer than a step of a small model."""
    return importlib.metadata.version(package)


@cache
def _distributions() -> dict[str, list[str]]:
    """Module at the top of its package -> the installed packages that it belongs to."""
    return dict(importlib.metadata.packages_distributions())


@cache
def _graph() -> dict[Path, set[str]]:
    """File of ours -> the modules of others that it imports at its top."""
    waiting = [path for path in sorted((PACKAGE / ENTRY).rglob("*.py")) if not _observes(path)]
    graph: dict[Path, set[str]] = {}
    while waiting:
        path = waiting.pop()
        if path not in graph:
            own, others = _imports(path)
            graph[path] = others
            waiting += [file for name in own for file in _files_of(name) if not _observes(file)]
    return graph


def _imports(path: Path) -> tuple[set[str], set[str]]:
    """What a file imports: names of ours wherever they stand, and at its top those of others."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {name for node in ast.walk(tree) for name in _names(node) if _is_ours(name)}
    others = {name for node in tree.body for name in _names(node) if not _is_ours(name)}
    return own, {name.partition(".")[0] for name in others}


def _names(node: ast.AST) -> Iterator[str]:
    """The dotted names of an import; relative imports are not used here."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == PACKAGE.name


def _files_of(name: str) -> Iterator[Path]:
    """The file of a dotted name and those of the packages around it."""
    path = PACKAGE
    for part in name.split(".")[1:]:
        yield path / "__init__.py"
        path = path / part
        if path.with_suffix(".py").is_file():
            yield path.with_suffix(".py")
            return
    if path.is_dir():
        yield path / "__init__.py"


def _observes(path: Path) -> bool:
    """Whether a source only watches, or holds settings without influence."""
    name = path.relative_to(PACKAGE).with_suffix("").as_posix()
    without = (*OBSERVERS, "config/sample", *(f"config/{key}" for key in WITHOUT_INFLUENCE))
    return any(name == one or name.startswith(f"{one}/") for one in without)


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
