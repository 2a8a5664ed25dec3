"""``--help``: how to call the command, what can be chosen, and every setting with its line."""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from lora_lab.cli.config_guard import PERMISSIONS
from lora_lab.config.convert import field_types, is_group

USAGE = {
    "train": """\
Train a LoRA, or sweep one setting and compare the values.

  python train.py [key=value ...]          one run
  python train.py -m network.dim=2,8,32    each value and the base, then a comparison
  python train.py -m +study=network_rank   a ready-made study

hydra.run.dir=<folder> and hydra.sweep.dir=<folder> place the results.
""",
    "sample": """\
Draw the grids of a run or sweep, or images from any kohya LoRA file.

  python sample.py run=<run or sweep folder> [key=value ...]
  python sample.py lora=<file.safetensors> prompt="..."
""",
}
_VALUE_WIDTH = 60


def help_text(folders: Sequence[Path], config_name: str, schema: type, arguments: list[str]) -> str:
    """Return the help of a command, with the values that the other arguments lead to.

    Args:
        folders: The folders of config files, ours first.
        config_name: ``train`` or ``sample``.
        schema: The settings dataclass of the command.
        arguments: The command line behind the script's name.
    """
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    with initialize_config_dir(str(folders[0]), version_base="1.3"):
        config = compose(config_name, overrides, return_hydra_config=True)
    parts = [USAGE[config_name], _choices(folders, config.hydra.runtime.choices)]
    parts.append("Settings: their values now, and what they mean\n")
    with_groups = sorted(field_types(schema).items(), key=lambda item: is_group(item[1]))
    for name, kind in with_groups:
        parts += [""] if is_group(kind) else []
        parts.append(_setting(config, name, kind, field_docs(schema)[name], depth=0))
    parts += ["", "Given on the command line only"]
    parts += [f"  {name}: {meaning}" for name, meaning in PERMISSIONS.items()]
    return "\n".join(parts) + "\n"


@cache
def field_docs(schema: type) -> dict[str, str]:
    """Return the line below each field of a settings dataclass.

    Raises:
        ValueError: A field has no line.
    """
    tree = ast.parse(textwrap.dedent(inspect.getsource(schema)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    docs = {}
    for field, line in pairwise(body):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant):
            docs[field.target.id] = inspect.cleandoc(str(line.value.value))
    missing = [field.name for field in dataclasses.fields(schema) if field.name not in docs]
    if missing:
        raise ValueError(f"{schema.__name__}: no line below {', '.join(missing)}")
    return docs


def _choices(folders: Sequence[Path], chosen: DictConfig) -> str:
    lines = ["Ready-made parts: what is chosen now, and what can be chosen"]
    files = [path for folder in folders for path in folder.glob("*/*.yaml")]
    not_for_this = {path.name for path in folders[0].iterdir()} - set(chosen) - {"study"}
    for group in sorted({path.parent.name for path in files} - not_for_this - {"hydra"}):
        known = sorted(path.stem for path in files if path.parent.name == group)
        now = f"{group}={chosen[group]}" if group in chosen else f"+{group}="
        lines.append(f"  {now:<26} {', '.join(known)}")
    return "\n".join(lines) + "\n"


def _setting(node: DictConfig, name: str, kind: Any, doc: str, depth: int) -> str:
    indent = "  " * depth
    if not is_group(kind):
        value = _shown(node, name)
        return f"{indent}{name} = {value}\n" + textwrap.indent(doc, f"{indent}    ")
    lines = [f"{indent}{name}: {doc}" if depth else f"{name}: {doc}"]
    for child, child_kind in field_types(kind).items():
        lines.append(_setting(node[name], child, child_kind, field_docs(kind)[child], depth + 1))
    return "\n".join(lines)


def _shown(node: DictConfig, name: str) -> str:
    if OmegaConf.is_missing(node, name):
        return "??? (must be set)"
    value = node[name]
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value) if str(value) else '""'
    return text if len(text) <= _VALUE_WIDTH else textwrap.shorten(text, _VALUE_WIDTH)
