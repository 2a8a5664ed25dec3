"""run.json and config.yaml: what was asked for, what went in, how it ended."""

import dataclasses
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lora_lab.config import TrainConfig
from lora_lab.files import read_json, read_yaml

SEED = "seed="
"""How the folder of one seed of a value begins."""

RUNNING, COMPLETE, FAILED = "running", "complete", "failed"
PAUSED, ENDED_EARLY = "paused", "ended early"
"""The run stands at a third of its steps, and goes on; it was shown to be worse there, and ends."""
RECORD, CONFIG, OVERRIDES = "run.json", "config.yaml", "overrides.yaml"


def read_facts(run_dir: Path) -> dict[str, Any] | None:
    """What run.json says; None when there is none that can be read."""
    try:
        facts = read_json(run_dir / RECORD)
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def read_settings(run_dir: Path) -> dict[str, Any]:
    """The settings in config.yaml; empty when it can't be read."""
    try:
        values = read_yaml(run_dir / CONFIG)
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def config_text(config: TrainConfig) -> str:
    """The resolved config as YAML."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


@cache
def git_commit() -> str | None:
    """The commit of this project's checkout, with ``+`` if files differ; None outside of one."""
    folder = Path(__file__).resolve().parents[1]
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


def run_name(run_dir: Path) -> str:
    """What a run is shown as: its folder; in a sweep, the value's and the seed's."""
    folder = run_dir.resolve()
    if folder.name.startswith(SEED):
        return f"{folder.parent.name} {folder.name}"
    return folder.name
