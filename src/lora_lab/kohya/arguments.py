"""Settings of kohya's trainer as its users keep them, under one set of names.

Three formats: settings of the kohya_ss GUI (JSON), sd-scripts' own (TOML, `--config_file`), and
the `ss_*` metadata of a LoRA file. All become sd-scripts' names of its command line.
"""

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lora_lab.errors import ConfigError
from lora_lab.kohya.gui import from_gui
from lora_lab.kohya.other_models import refuse_other_families
from lora_lab.kohya.ss_metadata import UNTOLD, from_metadata, own_settings
from lora_lab.kohya.values import split_words

MAX_BYTES = 2**24
"""Settings have a few kilobytes; a larger text file is something else."""
OF_A_GUI = {"train_batch_size", "network_dim", "learning_rate", "optimizer", "LoRA_type"}
OF_A_TOML = {
    "network_module",
    "network_dim",
    "train_batch_size",
    "learning_rate",
    "pretrained_model_name_or_path",
    "optimizer_type",
}


@dataclass(frozen=True)
class Arguments:
    """Settings of kohya's trainer."""

    kind: str
    """What they were read from, in words."""
    values: dict[str, Any]
    """Name of sd-scripts' command line -> value."""
    ignored: dict[str, str] = field(default_factory=dict)
    """Name in the file -> why it has no meaning for a training."""
    ours: dict[str, Any] = field(default_factory=dict)
    """Our key -> value, as a LoRA file of ours tells it."""
    to_give: dict[str, str] = field(default_factory=dict)
    """Our key that the file had a path for -> why it has to be given."""
    untold: tuple[str, ...] = ()
    """kohya's settings that the file can't tell, and that may have been anything."""


def read_arguments(path: Path) -> Arguments:
    """Read settings of kohya's trainer.

    Args:
        path: `.json` of the GUI, `.toml` of sd-scripts, or a LoRA `.safetensors`.

    Raises:
        ConfigError: Missing, damaged, of another kind, or not kohya's.
    """
    readers = {".json": _read_json, ".toml": _read_toml, ".safetensors": _read_lora}
    if path.suffix.lower() not in readers:
        raise ConfigError(
            f"{path} is neither .json (kohya_ss), .toml (sd-scripts) nor .safetensors (a LoRA); "
            "name one of them"
        )
    if not path.is_file():
        raise ConfigError(f"{path} is missing: name a file that exists")
    return readers[path.suffix.lower()](path)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES} bytes, too large for settings")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path} could not be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text ({error.reason}): save it as UTF-8") from error


def _read_json(path: Path) -> Arguments:
    try:
        tree = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not complete JSON ({error}): export it again") from error
    if isinstance(tree, dict):
        refuse_other_families(path, tree)
    if not isinstance(tree, dict) or len(OF_A_GUI & tree.keys()) < 2:
        raise ConfigError(
            f"{path} holds no settings of kohya_ss, which have keys such as network_dim and "
            "train_batch_size; save them in the GUI's LoRA tab"
        )
    try:
        values, ignored = from_gui(tree)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return Arguments("settings of kohya_ss", _with_additional(path, values), ignored)


def _read_toml(path: Path) -> Arguments:
    try:
        tree = tomllib.loads(_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML ({error}): export it again") from error
    if isinstance(tree.get("datasets"), list):
        raise ConfigError(
            f"{path} describes data sets (--dataset_config), not a training; name the TOML given "
            "as --config_file, and the images as data.dir"
        )
    values: dict[str, Any] = {}
    for key, value in tree.items():
        values.update(value if isinstance(value, dict) else {key: value})
    refuse_other_families(path, values)
    if len(OF_A_TOML & values.keys()) < 2:
        raise ConfigError(
            f"{path} holds no settings of sd-scripts, which have keys such as network_dim and "
            "learning_rate; name the TOML given as --config_file"
        )
    return Arguments("settings of sd-scripts", values)


def _read_lora(path: Path) -> Arguments:
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path} is not a complete safetensors file ({error})") from error
    if "ss_network_dim" not in metadata:
        raise ConfigError(
            f"{path} has no ss_* metadata, which tells how a LoRA was trained; name its settings "
            "(.json or .toml) instead"
        )
    refuse_other_families(path, metadata)
    values, ignored = from_metadata(metadata)
    told = own_settings(metadata)
    return Arguments(
        "metadata of a LoRA file",
        values,
        ignored,
        ours=told.settings,
        to_give=told.to_give,
        untold=() if told.settings else UNTOLD,
    )


def _with_additional(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Take the GUI's field of further arguments apart: `--name value ... --switch`."""
    text = str(values.pop("additional_parameters", "") or "")
    words = split_words(text, f"{path}: additional_parameters")
    found: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            found[name] = [value] if value else []
        elif found:
            found[list(found)[-1]].append(word)
        else:
            raise ConfigError(f"{path}: additional_parameters must begin with --<name>")
    for name, given in found.items():
        many = name.endswith("_args") or len(given) > 1
        values[name] = given if many else given[0] if given else True
    return values
