"""From Hydra's config to the dataclasses: every key is there, none is unknown, no value missing."""

import dataclasses
import difflib
from typing import Any, TypeVar, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lora_lab.config.sample import SampleConfig
from lora_lab.config.train import TrainConfig
from lora_lab.errors import ConfigError

T = TypeVar("T", TrainConfig, SampleConfig)


def to_config(config: DictConfig) -> TrainConfig:
    """Returns the settings of a training run as dataclasses.

    Args:
        config: the composed config, without Hydra's own node.

    Raises:
        ConfigError: one line for each unknown or missing key, or wrong type.
    """
    return _convert(config, TrainConfig)


def to_sample_config(config: DictConfig) -> SampleConfig:
    """Returns the settings of ``sample.py`` as dataclasses.

    Args:
        config: the composed config, without Hydra's own node.

    Raises:
        ConfigError: one line for each unknown or missing key, or wrong type.
    """
    return _convert(config, SampleConfig)


def _convert(config: DictConfig, schema: type[T]) -> T:
    problems = _key_problems(config, schema)
    if problems:
        raise ConfigError("\n".join(problems))
    try:
        typed = OmegaConf.merge(OmegaConf.structured(schema), config)
        result = OmegaConf.to_object(typed)
    except OmegaConfBaseException as error:
        reason = str(error.msg or error).splitlines()[0]
        raise ConfigError(f"{error.full_key or 'the config'}: {reason}") from error
    assert isinstance(result, schema)
    return result


def field_types(schema: type) -> dict[str, Any]:
    """Returns the fields of a settings dataclass and their types, in the order of the source."""
    hints = get_type_hints(schema)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}


def leaf_types(schema: type, prefix: str = "") -> dict[str, Any]:
    """Returns every setting of a schema as full key (``network.dim``) and type."""
    leaves: dict[str, Any] = {}
    for name, kind in field_types(schema).items():
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            leaves |= leaf_types(kind, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = kind
    return leaves


def type_words(kind: Any) -> str:
    """Returns a field's type in words, such as ``a whole number or null``."""
    words = {
        int: "a whole number",
        float: "a number",
        str: "text",
        bool: "true or false",
        type(None): "null",
        list[str]: "a list of texts",
        list[int]: "a list of whole numbers",
        list[float]: "a list of numbers",
    }
    if kind in words:
        return words[kind]
    return " or ".join(type_words(part) for part in get_args(kind))


def suggest(key: str, schema: type) -> str:
    """Returns the sentence that helps with an unknown key: the nearest one, or where all are."""
    known = list(leaf_types(schema))
    last = {name.rsplit(".", 1)[-1]: name for name in known}
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    same = difflib.get_close_matches(key.rsplit(".", 1)[-1], last, n=1, cutoff=0.7)
    if near or same:
        return f"did you mean {near[0] if near else last[same[0]]}?"
    return "see --help for all settings"


def _key_problems(config: DictConfig, schema: type) -> list[str]:
    problems: list[str] = []
    _collect(config, schema, "", schema, problems)
    return problems


def _collect(
    node: DictConfig, schema: type, prefix: str, root: type, problems: list[str]
) -> None:
    fields = field_types(schema)
    for key in node:
        if key not in fields:
            value = OmegaConf.to_container(node, resolve=False)[key]  # type: ignore[call-overload,index]
            full = f"{prefix}{key}"
            problems.append(f"{full} is not a setting, got {value!r}; {suggest(full, root)}")
    for key, kind in fields.items():
        full = prefix + key
        if key not in node or OmegaConf.is_missing(node, key):
            problems.append(f"{full} has no value; set {full}=<{_wanted(kind)}>")
        elif dataclasses.is_dataclass(kind) and isinstance(kind, type):
            _collect(node[key], kind, f"{full}.", root, problems)


def _wanted(kind: Any) -> str:
    return "..." if dataclasses.is_dataclass(kind) else type_words(kind)
