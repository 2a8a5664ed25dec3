"""Hydra's errors in one line each: key, value, what is allowed, next step."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import make_dataclass
from itertools import islice
from os.path import isdir
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lora_lab.cli.launcher_choice import launcher_problem
from lora_lab.cli.quoting import MULTIRUN_FLAGS
from lora_lab.config.convert import leaf_types, suggest, type_words
from lora_lab.errors import clipped, offered

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, ValueError, OSError)
"""What Hydra raises while it composes a config; the last one for a name longer than a file's."""

MAX_VALUES = 1000
"""Values of one sweep; each is trained under every seed."""
GROUPS_TO_ADD = ("study", "experiment")
"""Groups from which nothing is chosen in the base config."""


def explain(folders: Sequence[Path], schema: type, arguments: list[str]) -> list[str]:
    """Return one line for each argument that is wrong; none when each is right by itself.

    Args:
        folders: The folders of config files, ours first.
        schema: The settings dataclass of the command.
        arguments: The command line behind the script's name.
    """
    given = get_args_parser().parse_known_args(arguments)[0]
    folders = [*folders, *([Path(given.config_dir)] if given.config_dir else [])]
    sweeping = bool(MULTIRUN_FLAGS & set(arguments))
    return explain_overrides(folders, schema, given.overrides, sweeping)


def explain_overrides(
    folders: Sequence[Path], schema: type, overrides: list[str], sweeping: bool
) -> list[str]:
    """Return one line for each ``key=value`` that is wrong by itself, without repeats.

    Args:
        folders: The folders of config files, our own first.
        schema: The settings dataclass of the command.
        overrides: What the command line says.
        sweeping: Whether several values are allowed.
    """
    lines = [line for text in overrides for line in _problems(text, folders, schema, sweeping)]
    return list(dict.fromkeys([*lines, *_of_hydra(folders, overrides)]))


def _problems(text: str, folders: Sequence[Path], schema: type, sweeping: bool) -> list[str]:
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        told = clipped(text)
        return [f"{told} cannot be read as key=value; put the value in quotes: {_in_quotes(told)}"]
    if override.is_sweep_override() and not sweeping:
        return [
            f"{clipped(text)} names several values; add -m to sweep over them, "
            f"or write a list: {override.get_key_element()}=[...]"
        ]
    if override.is_hydra_override():
        return []  # one may need another: `_of_hydra`
    if override.is_delete():
        told = clipped(text)
        return [f"{told} would remove a setting; every setting must have a value, set it instead"]
    found = (_problem(single, folders, schema) for single in _values(override))
    return [line for line in found if line is not None]


def _of_hydra(folders: Sequence[Path], overrides: list[str]) -> list[str]:
    """One line for each wrong choice or setting of a launcher."""
    parser, parsed = OverridesParser.create(), []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException:
            continue  # told by `_problems`
    ours = [one for one in parsed if one.is_hydra_override() and not one.is_sweep_override()]
    found = (launcher_problem(one, folders, ours) for one in ours)
    return [line for line in found if line is not None]


def _values(override: Override) -> list[Override]:
    """Return one override for each value of a sweep."""
    if not override.is_discrete_sweep():
        return [override]
    key, parser = override.get_key_element(), OverridesParser.create()
    values = islice(override.sweep_string_iterator(), MAX_VALUES)
    return [parser.parse_override(f"{key}={value}") for value in values]


def _problem(override: Override, folders: Sequence[Path], schema: type) -> str | None:
    """Return what is wrong with one value; None when it is right by itself."""
    key, given = override.key_or_group, str(override.input_line).partition("=")[2]
    value = clipped(given)
    kinds = leaf_types(schema)
    # A key becomes a path only where it can't lead out of the folder.
    is_name = re.fullmatch(r"[\w-]+(/[\w-]+)*", key) is not None
    group = [path for folder in folders if is_name and isdir(path := folder / key)]
    if group:
        return _group_problem(override, given, group)
    if key in kinds and override.is_add():
        return f"{key} is there already; leave out the +: {key}={value}"
    if key in kinds:
        fits = _fits(override.value(), kinds[key])
        return None if fits else f"{key} must be {type_words(kinds[key])}, got {value}"
    children = [name for name in kinds if name.startswith(f"{key}.")]
    if children:
        return f"{key} holds several settings, got {value}; set one of {offered(given, children)}"
    return f"{clipped(key)} is not a setting, got {value}; {suggest(key, schema)}"


def _fits(value: Any, kind: Any) -> bool:
    """Whether a setting of a type can take a value, as OmegaConf converts them."""
    holder = OmegaConf.structured(make_dataclass("Holder", [("value", kind)]))
    try:
        holder.value = value
    except OmegaConfBaseException:
        return False
    return True


def _group_problem(override: Override, choice: str, folders: list[Path]) -> str | None:
    group = override.key_or_group
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    choices = [part.strip() for part in choice.strip("[]").split(",")]
    wrong = [part for part in choices if part not in known]
    if wrong:
        near = difflib.get_close_matches(clipped(wrong[0]), known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        got = clipped(wrong[0]) or "nothing"
        return f"{group} must be one of {offered(wrong[0], known)}, got {got}{hint}"
    choice = clipped(choice)
    if group in GROUPS_TO_ADD and not override.is_add():
        return f"{group}={choice} is a ready-made config to add; write +{group}={choice}"
    if group not in GROUPS_TO_ADD and override.is_add():
        return f"{group} is chosen already; leave out the +: {group}={choice}"
    return None


def _in_quotes(text: str) -> str:
    key, _, value = text.partition("=")
    return f"""{key}="'{value}'\""""
