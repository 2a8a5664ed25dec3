"""Imported settings as a config file of ours: config groups, then values.

Names and values come from files of others. A YAML dumper writes them, every text as a literal that
nothing is resolved in; what stands in a comment is one line that prints.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from lora_lab.config.literals import literals
from lora_lab.errors import one_line
from lora_lab.kohya.translated import Translation
from lora_lab.kohya.values import is_value

LONGEST = 300
"""Characters of a name or reason of others in a comment or on the terminal."""


class _Dumper(yaml.SafeDumper):
    """Writes every text so that each reader of YAML takes it for one."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """A word as it is where no reader can take it for anything else, other texts in quotes."""
        plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", text)  # the dumper quotes `yes` and `null`
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _Dumper.represent_text)


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
        f"# Imported from {one_line(source, LONGEST)}.",
        "#",
        f"#   {command}",
    ]
    # A dash, because a comment that begins with @ means something to Hydra.
    left = [f"#   - {entry}" for entry in _entries(result.impossible)]
    if left:
        head += ["#", "# What could not be expressed:", *left]
    groups = [{f"override /{name}": choice} for name, choice in sorted(result.groups.items())]
    return "\n".join([*head, "", _yaml({"defaults": groups}, flow=False), _yaml(literals(tree))])


def _yaml(tree: dict[str, Any], flow: bool | None = None) -> str:
    """YAML; mappings without another one inside stand in one line unless ``flow`` is false."""
    return yaml.dump(
        tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=flow
    )


def _entries(told: dict[str, str]) -> list[str]:
    """`name: why`, each one line."""
    return [f"{one_line(name, LONGEST)}: {one_line(why, LONGEST)}" for name, why in told.items()]


def experiment_name(stem: str) -> str:
    """A name for `+experiment=` from a file's; Hydra would take `1.02` or `INF` for a number."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-")
    is_word = re.match(r"[A-Za-z]", name) and not is_value(name) and name.lower() != "null"
    return name if is_word else f"kohya_{name}"


def command_of(result: Translation, path: Path) -> str:
    """The command that trains with an imported file `<folder>/experiment/<name>.yaml`."""
    words = [
        "python",
        "train.py",
        f"--config-dir={path.parent.parent}",
        f"+experiment={path.stem}",
    ]
    told = one_line(" ".join(shlex.quote(word) for word in words))
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
            lines += [f"  {entry}" for entry in _entries(dict(sorted(entries.items())))]
    return "\n".join(lines)
