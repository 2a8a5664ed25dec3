"""What a config may make the program do: checked for every config that Hydra composes.

Hydra builds whatever a config names (``hydra.callbacks``, launcher, sweeper, handlers of the log)
before any code of ours runs, and OmegaConf reads the environment where ``${oc.env:NAME}`` stands.
So the check is part of composing, before anything is built:

- A composed config may name only classes that are listed here.
- A file from another folder (``--config-dir``, ``hydra.searchpath``) may set the settings of LoRA
  Lab and refer to them, nothing of Hydra's, and no resolver but ``oc.select``.

Two arguments open this, on the command line only: no file can give them.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal import hydra as hydra_commands
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.utils import get_args_parser
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import Container, DictConfig, OmegaConf

from lora_lab.config.optimizer import PACKAGES
from lora_lab.errors import ConfigError, clipped, one_line
from lora_lab.files import read_yaml

ALLOW_PACKAGES, ALLOW_CONFIG_DIR = "allow_packages", "allow_config_dir"
PERMISSIONS = {
    ALLOW_PACKAGES: "packages whose classes a config may name, such as [my_optimizers]",
    ALLOW_CONFIG_DIR: "whether files of --config-dir may set hydra.* and use any resolver",
}
"""Arguments that no file can give, and what they allow."""
PLUGINS = ("hydra_plugins", "hydra._internal.core_plugins")
"""Where Hydra itself looks for launchers and sweepers, which must be registered there."""
PLACES = {
    "optimizer._target_": PACKAGES,
    "hydra.launcher._target_": PLUGINS,
    "hydra.launcher.within._target_": PLUGINS,
    "hydra.sweeper._target_": PLUGINS,
    "hydra.callbacks.check._target_": ("lora_lab.cli.preflight.CheckBeforeRun",),
}
"""Where a config may name a class, and of which packages."""
LOGS = ("hydra.job_logging.", "hydra.hydra_logging.")
LOG_CLASSES = (
    *("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter"),
    "lora_lab.cli.log_lines.LineFormatter",
)
LOG_REFERENCES = ("ext://sys.stderr", "ext://sys.stdout")
LOG_FILE = "${hydra.runtime.output_dir}/${hydra.job.name}.log"
"""The only text in the settings of the log that refers to others."""
STUDY_KEYS = ("params", "together", "by_model", "max_batch_size")
"""Of hydra.sweeper: what a ready-made study says."""
_REFERENCE = re.compile(r"\$\{(oc\.select:)?(?![.\[\]]*hydra\b)[\w.\[\]-]+(,[\w.-]*)?\}")
_OPENING = re.compile(r"(\\*)\$\{")


@dataclass(frozen=True)
class Permissions:
    """What the command line allows beyond the lists above."""

    packages: tuple[str, ...] = ()
    config_dir: bool = False


def take_permissions(arguments: list[str]) -> tuple[list[str], Permissions]:
    """Take ``allow_packages`` and ``allow_config_dir`` out of a command line.

    Raises:
        ConfigError: One has no such value.
    """
    rest: list[str] = []
    packages: list[str] = []
    config_dir = False
    for argument in arguments:
        key = argument.partition("=")[0]
        if key not in PERMISSIONS:
            rest.append(argument)
            continue
        try:
            value = OverridesParser.create().parse_override(argument).value()
        except HydraException:
            value = None
        names = value if isinstance(value, list) else [value]
        if key == ALLOW_CONFIG_DIR and isinstance(value, bool):
            config_dir = value
        elif key == ALLOW_PACKAGES and all(_is_package(name) for name in names):
            packages += map(str, names)
        else:
            kind = "a list of packages" if key == ALLOW_PACKAGES else "true or false"
            given = clipped(argument.partition("=")[2])
            raise ConfigError(f"{key} must be {kind}, got {given}")
    return rest, Permissions(tuple(packages), config_dir)


def _is_package(name: Any) -> bool:
    return isinstance(name, str) and re.fullmatch(r"[\w.]+", name) is not None


def refuse_flags(arguments: list[str]) -> None:
    """Refuse unknown flags, and two of Hydra's: one reads a pickle, one replaces our config.

    Raises:
        ConfigError: One of them is given, or a flag lacks its value.
    """

    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help shows what is allowed")

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]  # its own tells the usage in many lines
    given = parser.parse_args(arguments)
    if given.experimental_rerun is not None:
        raise ConfigError(
            "--experimental-rerun reads a pickle, which can run any code; give the settings instead"
        )
    if given.config_path is not None:
        raise ConfigError(
            "--config-path would replace LoRA Lab's own config; add a folder with --config-dir"
        )


@contextmanager
def guarded(permissions: Permissions) -> Iterator[None]:
    """Have every config that Hydra composes in the block checked, also in processes it starts."""
    # Hydra has no hook between composing and building: the name of its loader is the one place.
    name, guard = "ConfigLoaderImpl", partial(GuardedLoader, permissions=permissions)
    before = getattr(hydra_commands, name)
    setattr(hydra_commands, name, guard)
    try:
        yield
    finally:
        setattr(hydra_commands, name, before)


class GuardedLoader(ConfigLoaderImpl):
    """Hydra's loader, which refuses what a config may not do.

    Launchers hand it to their processes, so jobs are composed by it as well.

    Args:
        config_search_path: Where config files are looked for.
        permissions: What the command line allows.
    """

    def __init__(self, config_search_path: ConfigSearchPath, permissions: Permissions) -> None:
        super().__init__(config_search_path)
        self.permissions = permissions
        self.repository = GuardedRepository(config_search_path, permissions)

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose a config.

        Raises:
            ConfigError: One line for each class or reference that it may not name.
        """
        config = super().load_configuration(
            config_name, overrides, run_mode, from_shell, validate_sweep_overrides
        )
        problems = composed_problems(config, self.permissions)
        if problems:
            raise ConfigError(*problems)
        return config

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        result = super()._load_single_config(default, repo)
        if not self.permissions.config_dir and _is_foreign(result.provider):
            # The package that a file gives itself, or is given, can be a part of Hydra's node.
            problem = _hydra_problem(OmegaConf.to_container(result.config, resolve=False))
            if problem is not None:
                raise ConfigError(f"{default.config_path}.yaml in {result.path}: {problem}")
        return result


class GuardedRepository(ConfigRepository):
    """Hydra's config files, of which those from elsewhere are checked before they are read."""

    def __init__(self, config_search_path: ConfigSearchPath, permissions: Permissions) -> None:
        self.permissions = permissions
        super().__init__(config_search_path)

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Read a config file.

        Raises:
            ConfigError: It comes from elsewhere and says what it may not.
        """
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is not None and _is_foreign(source.provider):
            self._check_file(source, config_path)
        return super().load_config(config_path)

    def _check_file(self, source: ConfigSource, config_path: str) -> None:
        name = source._normalize_file_name(config_path)
        if source.scheme() == "file":
            path = Path(source.path) / name
            try:
                tree = read_yaml(path)
            except (OSError, ValueError) as error:
                raise ConfigError(f"{path} can't be read ({error})") from error
        else:
            path = Path(f"{source.full_path()}/{name}")
            config = source.load_config(config_path).config
            tree = OmegaConf.to_container(config, resolve=False) if config is not None else None
        if self.permissions.config_dir:
            return
        if (problem := _hydra_problem(tree)) is not None:
            raise ConfigError(f"{path}: {problem}")
        for text in _texts(tree):
            if (reference := foreign_reference(text)) is not None:
                raise ConfigError(
                    f"{path}: {one_line(reference, 60)} is not allowed in a config file: it may "
                    "refer to other settings as ${network.dim}, nothing else; if you trust the "
                    f"file, add {ALLOW_CONFIG_DIR}=true to the command"
                )


def _is_foreign(provider: str | None) -> bool:
    return provider is not None and provider.startswith(("command-line", "hydra.searchpath"))


def foreign_reference(text: str) -> str | None:
    """The first reference in a text that isn't a plain one to another setting; None without."""
    for found in _OPENING.finditer(text):
        if len(found[1]) % 2 == 0 and not _REFERENCE.match(text, found.end(1)):
            return text[found.end(1) :].partition("}")[0] + "}"
    return None


def _texts(tree: Any) -> Iterator[str]:
    """Every key and every value of a tree that is text."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield str(key)
            yield from _texts(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _texts(value)
    elif isinstance(tree, str):
        yield tree


def _hydra_problem(tree: Any) -> str | None:
    """What a file from elsewhere sets of Hydra's, beside the keys of a ready-made study."""
    if not isinstance(tree, dict) or "hydra" not in tree:
        return None
    node = tree["hydra"]
    sweeper = node.get("sweeper") if isinstance(node, dict) else None
    if not isinstance(node, dict) or set(node) - {"sweeper"} or not isinstance(sweeper, dict):
        key = next((str(key) for key in node if key != "sweeper"), "") if node else ""
        return (
            f"{one_line(f'hydra.{key}'.rstrip('.'), 60)} may only be set on the command line or by "
            f"LoRA Lab itself; if you trust the folder, add {ALLOW_CONFIG_DIR}=true to the command"
        )
    other = [str(key) for key in sweeper if key not in STUDY_KEYS]
    if other:
        return (
            f"{one_line(f'hydra.sweeper.{other[0]}', 60)} may not be set there; a study has "
            f"{', '.join(f'hydra.sweeper.{key}' for key in STUDY_KEYS)}"
        )
    # These become overrides, in which an escaped reference would be a live one.
    if any("${" in text for text in _texts(sweeper)):
        return "hydra.sweeper may not hold ${: a study's values are written out"
    return None


def composed_problems(config: DictConfig, permissions: Permissions) -> list[str]:
    """Return one line for each class that a config may not name, and each object of the log.

    Args:
        config: A composed config, Hydra's own node included.
        permissions: What the command line allows.
    """
    found = (_problem(key, value, permissions) for key, value in _leaves(config))
    return [line for line in found if line is not None]


def _leaves(config: Container) -> Iterator[tuple[str, Any]]:
    """Full key and unresolved value of every leaf."""
    tree = OmegaConf.to_container(config, resolve=False)

    def walk(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
        if isinstance(node, dict):
            for key, value in node.items():
                yield from walk(value, f"{prefix}.{key}" if prefix else str(key))
        elif isinstance(node, list):
            for index, value in enumerate(node):
                yield from walk(value, f"{prefix}.{index}")
        else:
            yield prefix, node

    return walk(tree, "")


def _problem(key: str, value: Any, permissions: Permissions) -> str | None:
    last = key.rpartition(".")[2]
    if last == "_target_":
        if value is None:
            return None
        return _class_problem(key, value, PLACES.get(key, ()), permissions)
    if not key.startswith(LOGS):
        return None
    if last in ("class", "()"):
        return _class_problem(key, value, LOG_CLASSES if last == "class" else (), permissions)
    text = str(value)
    referring = "${" in text and text != LOG_FILE
    if referring or ("://" in text and text not in LOG_REFERENCES):
        return f"{key} may not refer to anything else, got {one_line(text, 60)}; write the value"
    return None


def _class_problem(
    key: str, value: Any, packages: tuple[str, ...], permissions: Permissions
) -> str | None:
    name = str(value)
    allowed = (*packages, *permissions.packages)
    if re.fullmatch(r"[\w.]+", name) and any(f"{name}.".startswith(f"{p}.") for p in allowed):
        return None
    what = f"must be of {', '.join(packages)}" if packages else "may not name a class"
    package = name.partition(".")[0]
    return (
        f"{one_line(key, 80)} {what}, got {one_line(name, 80)}; if you trust that package, add "
        f"{ALLOW_PACKAGES}=[{one_line(package, 40)}] to the command"
    )
