"""Imported settings as a config file of ours: config groups, then values.

Names and values come from files of others. A YAML dumper writes them, every text as a literal that
nothing is resolved in; what stands in a comment is one line that prints.
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from lora_lab.config.literals import literals
from lora_lab.errors import one_line
from lora_lab.kohya.labels import labelled
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
        result: The translated settings.
        source: What they came from.
        command: The command that trains with them.
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


def summary(result: Translation, refused: Sequence[str] = ()) -> str:
    """What a person must know before training, the most pressing first; empty if all is well.

    Args:
        result: The translated settings.
        refused: What training would say of them.
    """
    lines = []
    for title, entries in (
        ("Can't be expressed here", _with_labels(result.impossible)),
        ("To be given with the command", result.to_give),
        ("Training would refuse", {line: "" for line in refused}),
        ("Done otherwise on purpose, see docs/parity.md", _with_labels(result.differs)),
    ):
        if entries:
            lines.append(f"{title} ({len(entries)}):")
            lines += [_entry(name, what) for name, what in entries.items()]
    if result.untold:
        lines.append(
            "A LoRA file can't tell, so that kohya's defaults are taken: "
            f"{', '.join(result.untold)}"
        )
    return "\n".join(lines)


def record(result: Translation) -> str:
    """What became of every setting, for a file beside the imported one."""
    lines = []
    for title, entries in (
        ("Can't be expressed here", result.impossible),
        ("To be given with the command", result.to_give),
        ("Done otherwise on purpose", result.differs),
        ("Taken over: kohya's name, ours", result.taken),
        ("Without effect", result.ignored),
    ):
        lines.append(f"{title} ({len(entries)}):")
        lines += [_entry(name, what) for name, what in sorted(entries.items())]
    return "\n".join(lines) + "\n"


def _with_labels(entries: dict[str, str]) -> dict[str, str]:
    return {labelled(name): what for name, what in entries.items()}


def _entry(name: str, what: str) -> str:
    told = f"{one_line(name, LONGEST)}: {one_line(what, LONGEST)}"
    return f"  {told if what else one_line(name, LONGEST)}"
