"""From kohya's settings to ours, name by name."""

import re
from typing import Any

from lora_lab.errors import one_line
from lora_lab.kohya.arguments import Arguments
from lora_lab.kohya.choices import DEFAULTS, OFF, WITHOUT_EFFECT
from lora_lab.kohya.names import KOHYA_NAMES, PLAIN
from lora_lab.kohya.own_fields import told_keys
from lora_lab.kohya.special import HANDLERS
from lora_lab.kohya.translated import Translation, fitting
from lora_lab.kohya.values import is_empty, parse

SECRET_NAME = re.compile(r"(token|api_?key|passw(or)?d|secret|credentials?|auth)$", re.IGNORECASE)
SECRET_VALUE = re.compile(r"hf_[A-Za-z0-9]{30,}|sk-[\w-]{20,}|gh[a-z]_\w{30,}|[0-9a-f]{40}")
LEFT_OUT = "left out: a key or token belongs in the login of its service, never in a config"
MISSING = "???"
"""OmegaConf's word for a value that is missing; a text can't be it."""


def translate(arguments: Arguments) -> Translation:
    """Translate kohya's settings.

    Every name of the file ends in exactly one of taken, ignored and impossible; a setting that is
    not given has kohya's default.

    Args:
        arguments: What a file of kohya's said.
    """
    result = Translation(ignored=dict(arguments.ignored))
    left = {}
    for name, value in arguments.values.items():
        if is_secret(name, value):
            result.ignored[name] = LEFT_OUT
        else:
            left[name] = value
    for handler in HANDLERS:
        handler(left, result)
    for key in PLAIN:
        _plain(key, left, result)
    for name, value in left.items():
        _other(name, value, result)
    _own(arguments, result)
    said = {*result.taken, *result.ignored, *result.impossible}
    parts = {part for name in said for part in name.split(": ")}
    for name in arguments.values.keys() - parts:
        result.ignored[name] = "off, or told by the settings beside it"
    for key in [key for key, value in result.settings.items() if MISSING in _texts(value)]:
        del result.settings[key]
        result.impossible[key] = f"the text {MISSING} stands for a missing value in a config"
    return result


def is_secret(name: str, value: Any) -> bool:
    """Whether a setting is a key or token by its name or its looks: it is shown nowhere."""
    return bool(SECRET_NAME.search(name)) or any(
        SECRET_VALUE.fullmatch(text.strip()) for text in _texts(value)
    )


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict | list | tuple):
        items = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        return [text for item in items for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def _own(arguments: Arguments, result: Translation) -> None:
    """What a LoRA file of ours tells in our own words goes before what kohya's words say."""
    known = told_keys()
    for key, value in arguments.ours.items():
        if key in known:
            result.put(key, value, "lora_lab.settings")
        else:
            result.ignored[f"lora_lab.settings: {key}"] = "no setting that a file may tell"
    for group in ("optimizer", "schedule"):
        if f"{group}.name" in arguments.ours:
            result.groups[group] = str(arguments.ours[f"{group}.name"])
    if arguments.ours:
        result.impossible.clear()
        result.to_give.pop("epochs", None)
    result.to_give |= arguments.to_give
    for name in arguments.untold:
        result.untold.append(name)


def _plain(key: str, left: dict[str, Any], result: Translation) -> None:
    """A setting that has the same value on both sides."""
    name = KOHYA_NAMES[key]
    given = left.pop(name, None)
    if is_empty(given):
        if name == "lr_scheduler_timescale" or name == "network_weights":
            result.put(key, None, name)
        elif name in DEFAULTS:
            result.put(key, fitting(DEFAULTS[name], key), name)
        else:
            result.ignored[name] = f"not given: {key} keeps LoRA Lab's own value"
        return
    result.take(key, parse(given), name, given)


def _other(name: str, value: Any, result: Translation) -> None:
    """A name without a key of ours: without effect, off, as it always is here, or impossible."""
    parsed = parse(value) if not is_empty(value) else None
    if name in WITHOUT_EFFECT:
        result.ignored[name] = WITHOUT_EFFECT[name]
    elif name in OFF and (parsed is None or parsed in (OFF[name], False, 0)):
        result.ignored[name] = "off"
    elif parsed in (None, False):
        result.ignored[name] = "not given"
    elif name in OFF:
        result.impossible[name] = f"LoRA Lab has nothing for the value {_short(value)}"
    else:
        result.impossible[name] = f"LoRA Lab doesn't know this setting, got {_short(value)}"


def _short(value: Any) -> str:
    return repr(one_line(value, 60))
