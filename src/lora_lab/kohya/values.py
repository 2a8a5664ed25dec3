"""Values as kohya's files spell them: texts, numbers, lists; nothing is evaluated."""

import math
import re
import shlex
from typing import Any

from lora_lab.errors import ConfigError

_PLACEHOLDER = re.compile(r"\s*<[^<>]*>\s*")
_WORDS = {"true": True, "false": False, "none": None, "": None}


def is_empty(value: Any) -> bool:
    """Whether a field holds nothing: null, an empty text or list, or a "<placeholder>"."""
    if isinstance(value, str):
        return not value.strip() or _PLACEHOLDER.fullmatch(value) is not None
    return value is None or value == []


def parse(text: Any) -> Any:
    """A number, truth value, null, list of such, or the text itself.

    Args:
        text: `0.9,0.99`, `(0.9, 0.99)`, `[0.9,0.99]`, `True`, `1e-4`, `inf` or any text.
    """
    if not isinstance(text, str):
        return list(text) if isinstance(text, tuple) else text
    bare = text.strip()
    if bare.lower() in _WORDS:
        return _WORDS[bare.lower()]
    inner = bare[1:-1] if bare[:1] + bare[-1:] in ("()", "[]") else bare
    if "," in inner:
        return [parse(part) for part in inner.split(",") if part.strip()]
    for kind in (int, float):
        try:
            return kind(bare)
        except ValueError:
            continue
    return bare


def is_value(text: str) -> bool:
    """Whether a text stands for a number, a truth value or null."""
    return not isinstance(parse(text), str)


def split_arguments(text: str) -> tuple[str, list[str]]:
    """Take `package.Class(a=1,b=(2, 3))` apart.

    Returns:
        The class's own name, and its arguments as `name=value`.
    """
    name, _, rest = text.partition("(")
    parts, depth, start = [], 0, 0
    inner = rest[:-1] if rest.endswith(")") else rest
    for index, sign in enumerate(inner):
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth == 0:
            parts.append(inner[start:index])
            start = index + 1
    parts.append(inner[start:])
    return name.strip().rsplit(".", 1)[-1], [part.strip() for part in parts if part.strip()]


def split_words(text: str, name: str) -> list[str]:
    """Words of a field of the GUI, quoted as a shell's.

    Raises:
        ConfigError: A quote is open. The text itself isn't shown: it may hold a token.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"{name} can't be parsed ({error}); correct it in the GUI") from error


def named_arguments(items: Any) -> dict[str, Any]:
    """`["betas=0.9,0.99", ...]` as a mapping; what has no `=` is true."""
    if isinstance(items, list | tuple):
        listed = list(items)
    else:
        listed = [] if is_empty(items) else str(items).split()
    pairs = (str(item).partition("=") for item in listed)
    return {name.strip(): parse(value) if sign else True for name, sign, value in pairs}


def is_number(value: Any) -> bool:
    """Whether a parsed value is a number; truth values are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_float(value: int | float) -> float:
    """A number as a float; infinite beyond the largest one."""
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def number(value: Any, default: float) -> float:
    """A number as it is spelled, or the default where there is none."""
    parsed = None if is_empty(value) else parse(value)
    return as_float(parsed) if isinstance(parsed, int | float) else default


def is_true(value: Any) -> bool:
    """Whether a switch is on."""
    return not is_empty(value) and bool(parse(value))
