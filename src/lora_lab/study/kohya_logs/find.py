"""Finding the runs of a folder of kohya's logs, and the settings that belong to each.

A run is a folder with event files in it. Runs that lie in one folder are compared with one
another; folders in between, such as `GR 1.02` and `GR INF`, make a comparison of their own each.
Settings are files of the same place with the name of the run.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from lora_lab.errors import ConfigError
from lora_lab.study.kohya_logs.events import is_event_file

LOG_FOLDERS = {"log", "logs", "logging", "tensorboard"}
CONFIG_FOLDERS = {"config", "configs", "settings", "json", "presets"}
TRACKERS = {"network_train", "lora_train", "finetuning", "dreambooth"}
"""Folder that kohya's trainer makes inside the one named by the time."""
SETTINGS = {".json", ".toml"}
_DATED = re.compile(
    r"^(?P<label>.+?)[_ ]"
    r"(?:(?:0?[1-9]|[12]\d|3[01])[._-](?:0?[1-9]|1[0-2])(?:[._-](?:\d{2}){1,2})?"
    r"|(?:\d{4}[._-])?(?:0?[1-9]|1[0-2])[._-](?:0?[1-9]|[12]\d|3[01]))$"
)
"""A value with a date behind it, `3_13.08`: the same value trained again. `0.9-0.99` has none."""


@dataclass(frozen=True)
class LogFolder:
    """Where one run lies."""

    group: tuple[str, ...]
    """Folders above it without `logs`: the comparison that it belongs to."""
    label: str
    """Its own folder's name."""
    files: tuple[Path, ...]
    """Its event files, by name."""

    @property
    def value(self) -> str:
        """The label without a date behind it."""
        dated = _DATED.match(self.label)
        return dated["label"] if dated else self.label


def find_runs(folder: Path) -> list[LogFolder]:
    """Find every run below a folder.

    Raises:
        ConfigError: It is no folder, or there are no event files in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; name the folder of kohya's logs")
    by_folder: dict[Path, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if is_event_file(path) and path.is_file():
            by_folder.setdefault(path.parent, []).append(path)
    if not by_folder:
        raise ConfigError(
            f"{folder} holds no event files (events.out.tfevents.*); name the folder that was "
            "kohya's logging_dir, or one above it"
        )
    places = []
    for run, files in by_folder.items():
        parts = [part for part in run.relative_to(folder).parts if part.lower() not in LOG_FOLDERS]
        while len(parts) > 1 and parts[-1].lower() in TRACKERS:
            parts.pop()
        label = parts.pop() if parts else folder.resolve().name
        places.append(LogFolder(tuple(parts), label, tuple(files)))
    return places


def find_settings(folder: Path, runs: list[LogFolder]) -> dict[LogFolder, Path]:
    """Find the settings of each run by name: its own label, or its value.

    Of several files with the right name the one whose folders agree best with the run's counts.
    Where the folders of logs and settings have different names (`GR INF` and `GR ∞`), those two
    belong together that hold the same names of runs.
    """
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SETTINGS and path.is_file()
    ]
    groups: dict[Path, tuple[str, ...]] = {}
    for path in files:
        above = path.relative_to(folder).parts[:-1]
        groups[path] = tuple(p for p in above if p.lower() not in CONFIG_FOLDERS | LOG_FOLDERS)
    renamed = _same_content(runs, groups)
    keyed: dict[str, list[tuple[Path, tuple[str, ...]]]] = {}
    for path, group in groups.items():
        named = (path, renamed.get(group, group))
        keyed.setdefault(_plain(path.stem), []).append(named)
    found = {}
    for run in runs:
        beside = [path for path in files if path.parent == run.files[0].parent]
        candidates = keyed.get(_plain(run.label), []) or keyed.get(_plain(run.value), [])
        fitting = [(path, group) for path, group in candidates if _agrees(group, run.group)]
        if len(beside) == 1:
            found[run] = beside[0]
        elif fitting:
            found[run] = max(fitting, key=lambda item: len(item[1]))[0]
    return found


def _same_content(
    runs: list[LogFolder], groups: dict[Path, tuple[str, ...]]
) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Folders of settings that no log has -> the folder of logs that holds the same names.

    Both lie in the same folder, and no other folder of settings there holds as many of the names.
    """
    labels: dict[tuple[str, ...], set[str]] = {}
    for run in runs:
        labels.setdefault(run.group, set()).update({_plain(run.label), _plain(run.value)})
    stems: dict[tuple[str, ...], set[str]] = {}
    for path, group in groups.items():
        stems.setdefault(group, set()).add(_plain(path.stem))
    found = {}
    for place, names in labels.items():
        strangers = [g for g in stems if g and g not in labels and g[:-1] == place[:-1]]
        if place in stems or not strangers:
            continue
        shared = {group: len(stems[group] & names) for group in strangers}
        best = max(shared.values())
        fitting = [group for group, count in shared.items() if count == best > 0]
        if len(fitting) == 1 and fitting[0] not in found:
            found[fitting[0]] = place
    return found


def _agrees(settings: tuple[str, ...], run: tuple[str, ...]) -> bool:
    """Whether the folders of settings are those of a run, or of all runs above it."""
    return settings == run[: len(settings)]


def _plain(text: str) -> str:
    return re.sub(r"[\s_]+", " ", text.strip().lower())
