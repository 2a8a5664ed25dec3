"""Imported settings as a config file of ours: config groups, then values."""

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from lora_lab.kohya.translated import Translation
from lora_lab.kohya.values import is_value


def experiment_text(result: Translation, source: str, command: str) -> str:
    """A file for `+experiment=<name>`.

    Args:
        result: the translated settings.
        source: what they came from.
        command: the command that trains with them.
    """
    tree: dict[str, Any] = {}
    for key, value in sorted(result.settings.items()):
        node = tree
        *above, last = key.split(".")
        for part in above:
            node = node.setdefault(part, {})
        node[last] = value
    head = [
        "# @package _global_",
        f"# {' '.join(source.split())}, imported.",
        "#",
        f"#   {command}",
    ]
    left = [f"#   {name}: {' '.join(why.split())}" for name, why in result.impossible.items()]
    if left:
        head += ["#", "# What could not be expressed:", *left]
    groups = [f"  - override /{name}: {choice}" for name, choice in sorted(result.groups.items())]
    body = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=None)
    return "\n".join([*head, "", "defaults:", *groups, "", body])


def experiment_name(stem: str) -> str:
    """A name for `+experiment=` from a file's; Hydra would take `1.02` or `INF` for a number."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-")
    return name if re.match(r"[A-Za-z]", name) and not is_value(name) else f"kohya_{name}"


def command_of(result: Translation, path: Path) -> str:
    """The command that trains with an imported file `<folder>/experiment/<name>.yaml`."""
    words = [
        "python",
        "train.py",
        f"--config-dir={path.parent.parent}",
        f"+experiment={path.stem}",
    ]
    told = " ".join(shlex.quote(word) for word in words)
    return " ".join([told, *(f"{key}=…" for key in result.to_give)])


def summary(result: Translation) -> str:
    """What became of each setting, for the terminal."""
    lines = []
    for title, entries in (
        ("Taken over", result.taken),
        ("Without effect", result.ignored),
        ("NOT EXPRESSED", result.impossible),
        ("To be given with the command", result.to_give),
    ):
        if entries:
            lines.append(f"{title} ({len(entries)}):")
            lines += [
                f"  {name}: {' '.join(what.split())}" for name, what in sorted(entries.items())
            ]
    return "\n".join(lines)
