"""What is wrong with a choice of ``hydra/launcher`` and with settings of the launcher chosen."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from lora_lab.errors import clipped
from lora_lab.files import read_yaml

GROUP = "hydra/launcher"
DEFAULT = "basic"
"""Hydra's own launcher: one run after the other."""
PREFIX = "hydra.launcher."


def launcher_problem(
    override: Override, folders: Sequence[Path], others: Sequence[Override]
) -> str | None:
    """Return what is wrong with one override of Hydra's; None when that is nothing of a launcher.

    Args:
        override: One of ``hydra/…`` or ``hydra.…``.
        folders: The folders of config files.
        others: All overrides, among which a launcher may be chosen.
    """
    key, value = override.key_or_group, clipped(override.value())
    names = launchers(folders)
    if key == GROUP and not override.is_delete():
        if override.value() in names:
            return None
        near = difflib.get_close_matches(value, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{GROUP} must be one of {', '.join(names)}, got {value or 'nothing'}{hint}"
    if not key.startswith(PREFIX) or override.is_add() or override.is_delete():
        return None
    chosen = [str(one.value()) for one in others if one.key_or_group == GROUP]
    launcher = chosen[-1] if chosen else DEFAULT
    known = settings_of(launcher, folders)
    if launcher not in names or _is_known(key, known):
        return None
    told = f"{clipped(key)} is not a setting of {GROUP}={clipped(launcher)}, got {value}"
    having = [name for name in names if _is_known(key, settings_of(name, folders))]
    if having:
        return f"{told}; choose {GROUP}={having[0] if len(having) == 1 else _first(having)}"
    if not known:
        choices = ", ".join(name for name in names if name != launcher)
        return f"{told}, which has none; choose another launcher: {choices}"
    near = difflib.get_close_matches(clipped(key), list(known), n=1, cutoff=0.7)
    return f"{told}; did you mean {near[0]}?" if near else f"{told}; it has {', '.join(known)}"


def launchers(folders: Sequence[Path]) -> list[str]:
    """Names of the launchers: ours and those of Hydra and its plugins."""
    files = {path.stem for folder in folders for path in (folder / GROUP).glob("*.yaml")}
    store = ConfigStore.instance()
    return sorted(files | {name.removesuffix(".yaml") for name in store.list(GROUP)})


def settings_of(launcher: str, folders: Sequence[Path]) -> dict[str, Any]:
    """Full key and default of every setting of a launcher, those of its workers' included."""
    found: dict[str, Any] = {}
    name = f"{launcher}.yaml"
    if name in ConfigStore.instance().list(GROUP):
        node = ConfigStore.instance().load(f"{GROUP}/{name}").node
        found |= _leaves(OmegaConf.to_container(OmegaConf.create(node), resolve=False), PREFIX)
    for folder in folders:
        path = folder / GROUP / name
        tree = read_yaml(path) if path.is_file() else {}
        for entry in tree.pop("defaults", []):
            inner, _, package = str(entry).partition("@")
            if package:
                for key, value in settings_of(inner, folders).items():
                    found[f"{PREFIX}{package}.{key.removeprefix(PREFIX)}"] = value
        found |= _leaves(tree, PREFIX)
    return {key: value for key, value in found.items() if key.rpartition(".")[2][:1] != "_"}


def _leaves(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Full key and value of every leaf; an empty tree is one, to which anything can be added."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _is_known(key: str, known: dict[str, Any]) -> bool:
    """Whether a key is a setting, holds some, or lies in one that takes a tree."""
    holders = (name for name, value in known.items() if isinstance(value, dict | None))
    return (
        key in known
        or any(name.startswith(f"{key}.") for name in known)
        or any(key.startswith(f"{name}.") for name in holders)
    )


def _first(having: Sequence[str]) -> str:
    return f"{having[0]}, or {', '.join(having[1:])}"
