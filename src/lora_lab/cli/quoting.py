"""Texts on the command line: a prompt or a path means itself, commas and parentheses included."""

import re

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from lora_lab.config.convert import leaf_types

MULTIRUN_FLAGS = {"-m", "--multirun"}
_TEXT_TYPES = (str, str | None)


def quote(value: str) -> str:
    """Return ``value`` as a quoted string of Hydra's override grammar."""
    # In Hydra's grammar backslashes escape only in a row that ends at a quote.
    doubled = re.sub(r"\\+(?='|$)", lambda row: row.group() * 2, value)
    return "'" + doubled.replace("'", "\\'") + "'"


def quote_texts(arguments: list[str], schema: type) -> list[str]:
    """Quote the values of text settings that Hydra's grammar would take apart.

    ``prompt=a portrait, (smile:1.2)`` is one text for a person and a sweep or an error for Hydra.
    In a sweep, commas stand between values and nothing is quoted.

    Args:
        arguments: The command line behind the script's name.
        schema: The settings dataclass of the command.

    Returns:
        The arguments, of which some are quoted.
    """
    if MULTIRUN_FLAGS & set(arguments):
        return arguments
    kinds = leaf_types(schema)
    return [_quoted(argument, kinds) for argument in arguments]


def _quoted(argument: str, kinds: dict[str, object]) -> str:
    key, equals, value = argument.partition("=")
    if not equals or kinds.get(key.lstrip("+")) not in _TEXT_TYPES or _reads_as_text(argument):
        return argument
    return f"{key}={quote(value)}"


def _reads_as_text(argument: str) -> bool:
    """Whether Hydra reads the value as one value that is not a list or a function call."""
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return False
    value = override._value
    return not override.is_sweep_override() and not isinstance(value, list | dict)
