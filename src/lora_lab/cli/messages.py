"""Hydra's errors in one line each: key, value, what is allowed, next step."""

import difflib
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from lora_lab.cli.arguments import MULTIRUN_FLAGS
from lora_lab.config.convert import leaf_types, suggest, type_words, unknown_keys

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, ValueError)
"""What Hydra raises while it composes a config."""


def explain(conf: Path, config_name: str, schema: type, arguments: list[str]) -> list[str]:
    """Returns one line for each argument that is wrong; none when each is right by itself.

    Args:
        conf: the folder of config files.
        config_name: the file of ``conf`` that was composed.
        schema: the settings dataclass of the command.
        arguments: the command line behind the script's name.
    """
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    sweeping = bool(MULTIRUN_FLAGS & set(arguments))
    return explain_overrides(conf, config_name, schema, overrides, sweeping)


def explain_overrides(
    conf: Path, config_name: str, schema: type, overrides: list[str], sweeping: bool
) -> list[str]:
    """Returns one line for each ``key=value`` that is wrong by itself, without repeats."""
    lines = []
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf.absolute()), version_base="1.3"):
        for text in overrides:
            lines += _problems(text, conf, config_name, schema, sweeping)
    return list(dict.fromkeys(lines))


def _problems(text: str, conf: Path, config_name: str, schema: type, sweeping: bool) -> list[str]:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        return [f"{text} cannot be read as key=value; put the value in quotes: {_in_quotes(text)}"]
    if override.is_sweep_override() and not sweeping:
        return [
            f"{text} names several values; add -m to sweep over them, "
            f"or write a list: {override.get_key_element()}=[...]"
        ]
    if override.is_hydra_override():
        return []  # one may need another, such as a launcher's settings the launcher
    lines = []
    for single in _values(override):
        try:
            lines += unknown_keys(compose(config_name, [single]), schema)
        except COMPOSITION_ERRORS:
            lines.append(_problem(single, conf, schema))
    return lines


def _values(override: Override) -> list[str]:
    """Returns one override for each value of a sweep."""
    if not override.is_discrete_sweep():
        return [str(override.input_line)]
    key = override.get_key_element()
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _problem(text: str, conf: Path, schema: type) -> str:
    sign = text[: len(text) - len(text.lstrip("+~"))]
    key, _, value = text.lstrip("+~").partition("=")
    kinds = leaf_types(schema)
    if sign == "~":
        return f"{text} would remove a setting; every setting must have a value, set it instead"
    if (conf / key).is_dir():
        return _group_problem(key, value, sign, conf)
    if key in kinds and sign == "+":
        return f"{key} is there already; leave out the +: {key}={value}"
    if key in kinds:
        return f"{key} must be {type_words(kinds[key])}, got {value}"
    children = [name for name in kinds if name.startswith(f"{key}.")]
    if children:
        return f"{key} holds several settings, got {value}; set one of {', '.join(children)}"
    return f"{key} is not a setting, got {value}; {suggest(key, schema)}"


def _group_problem(group: str, choice: str, sign: str, conf: Path) -> str:
    known = sorted(path.stem for path in (conf / group).glob("*.yaml"))
    choices = [part.strip() for part in choice.strip("[]").split(",")]
    wrong = [part for part in choices if part not in known]
    if wrong:
        near = difflib.get_close_matches(wrong[0], known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{group} must be one of {', '.join(known)}, got {wrong[0] or 'nothing'}{hint}"
    if sign:
        return f"{group} is chosen already; leave out the +: {group}={choice}"
    if len(choices) > 1:
        return f"{group} must be one of {', '.join(known)}, got several: {choice}"
    return f"{group}={choice} is a ready-made config to add; write +{group}={choice}"


def _in_quotes(text: str) -> str:
    key, _, value = text.partition("=")
    return f"""{key}="'{value}'\""""


def first_line(error: Any) -> str:
    """Returns the first line of an error's text that isn't empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
