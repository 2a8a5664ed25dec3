"""From Hydra's config to the dataclasses: every key is there, none is unknown, no value missing."""

import dataclasses
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lora_lab.config.check_all import check
from lora_lab.config.literals import literals
from lora_lab.config.sample import SampleConfig
from lora_lab.config.sampling import GridConfig
from lora_lab.config.train import TrainConfig
from lora_lab.errors import ConfigError, LabError, clipped, one_line
from lora_lab.files import read_yaml

T = TypeVar("T", TrainConfig, SampleConfig)

RENAMED = {
    "study.base_runs": "it is study.seeds now: base and values are trained under the same seeds",
    "logger.csv": "metrics.csv is always written: leave it out",
}
"""Settings of earlier versions, and what to do without them."""


def without_hydra(config: DictConfig) -> DictConfig:
    """Return a copy of a composed config without Hydra's own node."""
    names = [str(key) for key in config if key != "hydra"]
    return OmegaConf.masked_copy(config, names)


def to_config(config: DictConfig) -> TrainConfig:
    """Return the settings of a training run as dataclasses.

    Args:
        config: The composed config, without Hydra's own node.

    Raises:
        ConfigError: One line for each unknown or missing key, or wrong type.
    """
    return _convert(config, TrainConfig)


def read_config(path: Path) -> TrainConfig:
    """Return the checked settings of a run's config.yaml, in which nothing is resolved.

    Raises:
        LabError: The file can't be read, is damaged or of another version.
        ConfigError: A value is out of its range.
    """
    try:
        tree = read_yaml(path)
        if not isinstance(tree, dict):
            raise ValueError("it holds no settings")
        if isinstance(tree.get("logger"), dict):
            tree["logger"].pop("csv", None)  # of an earlier version, where it had to be true
        config = to_config(OmegaConf.create(literals(tree)))
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise LabError(f"{path} can't be read ({error}); run the sweep again") from error
    check(config)
    return config


def to_sample_config(config: DictConfig) -> SampleConfig:
    """Return the settings of ``sample.py`` as dataclasses.

    Args:
        config: The composed config, without Hydra's own node.

    Raises:
        ConfigError: One line for each unknown or missing key, or wrong type.
    """
    return _convert(config, SampleConfig)


def _convert(config: DictConfig, schema: type[T]) -> T:
    problems = unknown_keys(config, schema) + missing_keys(config, schema)
    if problems:
        raise ConfigError(*problems)
    try:
        typed = OmegaConf.merge(OmegaConf.structured(schema), config)
        result = OmegaConf.to_object(typed)
    except OmegaConfBaseException as error:
        reason = str(error.msg or error).splitlines()[0]
        key = clipped(error.full_key or "the config")
        raise ConfigError(f"{key}: {one_line(reason, 300)}") from error
    assert isinstance(result, schema)
    return result


def is_group(kind: Any) -> bool:
    """Whether a field's type is a settings dataclass of its own."""
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def field_types(schema: type) -> dict[str, Any]:
    """Return the fields of a settings dataclass and their types, in the order of the source."""
    hints = get_type_hints(schema)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}


def leaf_types(schema: type, prefix: str = "") -> dict[str, Any]:
    """Return every setting of a schema as full key (``network.dim``) and type."""
    leaves: dict[str, Any] = {}
    for name, kind in field_types(schema).items():
        if is_group(kind):
            leaves |= leaf_types(kind, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = kind
    return leaves


def type_words(kind: Any) -> str:
    """Return a field's type in words, such as ``a whole number or null``."""
    words = {
        int: "a whole number",
        float: "a number",
        str: "text",
        bool: "true or false",
        type(None): "null",
        list[str]: "a list of texts",
        list[int]: "a list of whole numbers",
        list[float]: "a list of numbers",
        dict[str, Any]: "names with values",
        dict[str, str]: "names with texts",
        list[GridConfig]: "a list of grids",
        Any: "a whole number or a list of them",
    }
    if is_group(kind):
        return "..."
    if kind in words:
        return words[kind]
    return " or ".join(type_words(part) for part in get_args(kind))


def suggest(key: str, schema: type) -> str:
    """Return the sentence that helps with an unknown key: the nearest one, or where all are."""
    if key in RENAMED:
        return RENAMED[key]
    key, known = clipped(key), list(leaf_types(schema))
    last = {name.rsplit(".", 1)[-1]: name for name in reversed(known)}
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    same = difflib.get_close_matches(key.rsplit(".", 1)[-1], last, n=1, cutoff=0.7)
    if near or same:
        return f"did you mean {near[0] if near else last[same[0]]}?"
    return "see --help for all settings"


def unknown_keys(config: DictConfig, schema: type) -> list[str]:
    """Return one line for each key of the config that the schema doesn't know."""
    lines = []
    for prefix, node, kind in _nodes(config, schema, ""):
        known = field_types(kind)
        for key in node:
            if key not in known:
                full, value = f"{prefix}{key!s}", node._get_node(key)
                told = f"{clipped(full)} is not a setting, got {clipped(value)}"
                lines.append(f"{told}; {suggest(full, schema)}")
    return lines


def missing_keys(config: DictConfig, schema: type) -> list[str]:
    """Return one line for each setting of the schema that has no value."""
    return [
        f"{prefix}{key} has no value; set {prefix}{key}=<{type_words(wanted)}>"
        for prefix, node, kind in _nodes(config, schema, "")
        for key, wanted in field_types(kind).items()
        if key not in node or OmegaConf.is_missing(node, key)
    ]


def _nodes(node: Any, schema: type, prefix: str) -> Iterator[tuple[str, DictConfig, type]]:
    """Yield each settings node with its prefix (``network.``) and dataclass, from the top down."""
    yield prefix, node, schema
    for key, kind in field_types(schema).items():
        if is_group(kind) and key in node and isinstance(node[key], DictConfig):
            yield from _nodes(node[key], kind, f"{prefix}{key}.")


def spelled(value: Any) -> str:
    """A value as the command line spells it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(spelled(item) for item in value) + "]"
    return str(value)
