"""What a sweep runs: the base and each value that isn't the base's own, under the same seeds."""

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice, product

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from lora_lab.cli.messages import MAX_VALUES
from lora_lab.cli.preflight import check_sampling_paths, checked_train_config
from lora_lab.cli.quoting import quote
from lora_lab.config import TrainConfig
from lora_lab.config.convert import spelled, without_hydra
from lora_lab.config.study import MAX_SEED, seeds_of
from lora_lab.errors import ConfigError

BASE = "base"
"""Folder of the base's runs inside a sweep folder."""
MAX_NAME = 100
"""Longest folder name; file systems allow 255 bytes, a terminal shows fewer."""

Compose = Callable[[list[str]], DictConfig]
"""From overrides to the composed config, with Hydra's own node in it."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep."""

    name: str
    """Folder inside the sweep folder: base/seed=<s> or <parameter>=<value>/seed=<s>."""
    value: str
    """The swept parameter's value, as on the command line."""
    is_base: bool
    """Whether it is one of those that the values are compared with."""
    config: TrainConfig
    """Its checked settings."""
    overrides: tuple[str, ...]
    """What Hydra composes it from, without folders."""


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep: under the first seed the base and all values, then under the next."""

    parameter: str
    values: tuple[str, ...]
    base_value: str
    overrides: tuple[str, ...]
    """What the command line says beside the swept parameter."""
    seeds: tuple[int, ...]
    """Base and values are trained under each of them."""
    runs: tuple[PlannedRun, ...]
    launcher: tuple[str, ...] = ()
    """What the command line says of Hydra's launcher; nothing where it is the default one."""

    @property
    def base(self) -> PlannedRun:
        """The first run of the base."""
        return self.runs[0]

    def under(self, seed: int, values: Collection[str]) -> tuple[PlannedRun, ...]:
        """Plan the base and some values under another seed.

        Args:
            seed: A seed that the plan doesn't hold.
            values: As PlannedRun has them.
        """
        first = self.base.config.seed
        return tuple(
            _under_seed(run, seed)
            for run in self.runs
            if run.config.seed == first and (run.is_base or run.value in values)
        )


def make_plan(
    overrides: Sequence[Override], compose: Compose, together: Sequence[Mapping[str, str]] = ()
) -> Plan:
    """Compose and check every run of a sweep.

    Args:
        overrides: The parsed command line, the later of two for one key winning; a single value
            beside the swept ones (``network.dim=4 network.dim=2,8``) is the base's.
        compose: Composes the config of one run.
        together: Settings that change together, one mapping of key and value a run.

    Raises:
        ConfigError: No parameter, several although study.several_parameters is false, or a run with
            wrong settings.
    """
    swept = {o.get_key_element(): _swept_values(o) for o in overrides if o.is_sweep_override()}
    latest = {
        o.get_key_element(): str(o.input_line) for o in overrides if not o.is_sweep_override()
    }
    fixed = tuple(latest.values())
    swept = swept or _columns(together)
    _refuse_seeds(swept)
    base_config = compose(list(fixed))
    base = checked_train_config(without_hydra(base_config))
    check_sampling_paths(base)
    if base.study.pause:
        raise ConfigError(
            "study.pause=true is for a single run, a sweep sets it by itself; leave it out, or set "
            "study.early_end=true"
        )
    rows = list(zip(*swept.values(), strict=True)) if _is_table(swept, together) else None
    if rows is None and len(swept) > 1 and not base.study.several_parameters:
        raise ConfigError(
            f"a sweep over {' and '.join(swept)} at once can't tell which of them made a "
            "difference; sweep one, or set study.several_parameters=true"
        )
    base_value = ",".join(_value_text(base_config, key) for key in swept)
    seeds = _checked_seeds(base)
    unswept = tuple(text for key, text in latest.items() if key not in swept)
    values = _value_runs(unswept, swept, rows or list(product(*swept.values())), compose)
    first = _distinct([PlannedRun(BASE, base_value, True, base, fixed), *values])
    return Plan(
        parameter=",".join(key.lstrip("+") for key in swept),
        values=tuple(dict.fromkeys(run.value for run in values)),
        base_value=base_value,
        overrides=fixed,
        seeds=seeds,
        runs=tuple(_under_seed(run, seed) for seed in seeds for run in first),
    )


def _under_seed(run: PlannedRun, seed: int) -> PlannedRun:
    """A run as it is under a seed, in a folder of its own inside the value's."""
    overrides = run.overrides
    if seed != run.config.seed:
        kept = (text for text in overrides if not text.startswith("seed="))
        overrides = (*kept, f"seed={seed}")
    name = f"{run.name.partition('/')[0]}/seed={seed}"
    return replace(run, name=name, config=replace(run.config, seed=seed), overrides=overrides)


def _checked_seeds(base: TrainConfig) -> tuple[int, ...]:
    """The seeds of a plan.

    Raises:
        ConfigError: Counting from seed on leads beyond the largest.
    """
    seeds = seeds_of(base.study, base.seed)
    if seeds[-1] > MAX_SEED:
        raise ConfigError(f"seed={base.seed} leaves no room for {len(seeds)} seeds; lower it")
    return seeds


def _refuse_seeds(swept: Mapping[str, list[str]]) -> None:
    """Refuse a sweep over seeds, under which every value is trained anyway.

    Raises:
        ConfigError: The seed or a setting of the study is swept.
    """
    for key, values in swept.items():
        text = ",".join(values)
        if key in ("seed", "study.seeds"):
            raise ConfigError(
                f"{key}={text} can't be swept: base and values are trained under the same seeds; "
                f"write study.seeds=[{text}] beside the parameter under study"
            )
        if key.startswith("study."):
            raise ConfigError(f"{key}={text} can't be swept: it says how a sweep is made; set one")


def _columns(together: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """Key -> its value in each of the settings that change together.

    Raises:
        ConfigError: There are none, or they don't all name the same keys.
    """
    _refuse_without_parameter(together)
    keys = list(together[0])
    for row in together:
        if list(row) != keys:
            raise ConfigError(
                f"hydra.sweeper.together must name the same keys in each entry, got "
                f"{', '.join(keys)} and {', '.join(row)}"
            )
    return {key: [row[key] for row in together] for key in keys}


def _is_table(swept: dict[str, list[str]], together: Sequence[Mapping[str, str]]) -> bool:
    return bool(together) and swept == _columns(together)


def _refuse_without_parameter(together: Sequence[Mapping[str, str]]) -> None:
    if not together:
        raise ConfigError(
            "-m needs a parameter with several values, such as network.dim=2,8,32, got none; "
            "add a second value (the base's own is free), or leave out -m for a single run"
        )


def _swept_values(override: Override) -> list[str]:
    if not override.is_discrete_sweep():
        raise ConfigError(
            f"{override.input_line} is an interval, a sweep needs values; "
            f"write {override.get_key_element()}=value1,value2 or range(start,stop,step)"
        )
    values = [str(value) for value in islice(override.sweep_string_iterator(), MAX_VALUES + 1)]
    if len(values) > MAX_VALUES:
        raise ConfigError(
            f"{override.get_key_element()} has more than {MAX_VALUES} values, each of which is a "
            "run; name fewer, or a larger step of range()"
        )
    return values


def _value_runs(
    fixed: tuple[str, ...],
    swept: dict[str, list[str]],
    rows: Sequence[tuple[str, ...]],
    compose: Compose,
) -> list[PlannedRun]:
    """The runs of the values; a row has a value for each swept key."""
    runs, problems = [], []
    for values in rows:
        assigned = [f"{key}={value}" for key, value in zip(swept, values, strict=True)]
        overrides = (*fixed, *assigned)
        try:
            config = checked_train_config(without_hydra(compose(list(overrides))))
        except ConfigError as error:
            problems += str(error).splitlines()
            continue
        name = folder_name([item.lstrip("+") for item in assigned])
        value = ",".join(_unquoted(value) for value in values)
        runs.append(PlannedRun(name, value, False, config, overrides))
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return runs


def _distinct(runs: list[PlannedRun]) -> tuple[PlannedRun, ...]:
    """Leave out a run whose settings an earlier one has: that one is it."""
    kept: list[PlannedRun] = []
    for run in runs:
        if all(run.config != earlier.config for earlier in kept):
            names = {earlier.name.lower() for earlier in kept}
            name = _with_digest(run.name, run.overrides) if run.name.lower() in names else run.name
            kept.append(PlannedRun(name, run.value, run.is_base, run.config, run.overrides))
    return tuple(kept)


def folder_name(assigned: Sequence[str]) -> str:
    """Return ``<parameter>=<value>`` as a name that every file system takes.

    What could leave the folder or confuse a shell becomes ``_``; a name that is too long is cut
    and ends with a digest.

    Args:
        assigned: ``key=value`` of each swept parameter.
    """
    text = ",".join(assigned)
    name = re.sub(r"[^\w.,=+\[\]-]+", "_", _unquoted(text), flags=re.ASCII).strip("_.") or "_"
    return name if len(name) <= MAX_NAME else _with_digest(name, assigned)


def _with_digest(name: str, assigned: Sequence[str]) -> str:
    digest = hashlib.sha256("\n".join(assigned).encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME - 9]}-{digest}"


def _unquoted(value: str) -> str:
    return value.replace("'", "").replace('"', "")


def _value_text(config: DictConfig, key: str) -> str:
    """Return the value of a swept setting in a composed config, as the command line spells it."""
    name = key.lstrip("+")
    choices = config.hydra.runtime.choices
    if name in choices:
        return str(choices[name])
    value = OmegaConf.select(config, name)
    return spelled(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)


class Leg(Enum):
    """Which part of their steps runs take."""

    WHOLE = ()
    FIRST = ("study.pause=true",)
    """Up to the pause of `study.early_end`."""
    SECOND = ("resume=true", "overwrite=false")
    """From there on, also where a run that another command left would begin anew."""


def launch_overrides(
    run: PlannedRun, sweep_dir: str, group: str | None, leg: Leg = Leg.WHOLE
) -> list[str]:
    """Return what a launcher composes a run from: its settings, and where it goes.

    Args:
        run: The run.
        sweep_dir: The sweep folder.
        group: The group that its Weights & Biases run joins; None leaves the setting alone.
        leg: Which part of its steps it takes.
    """
    folders = [f"hydra.sweep.dir={quote(sweep_dir)}", f"hydra.sweep.subdir={quote(run.name)}"]
    joined = [] if group is None else [f"logger.wandb.group={quote(group)}"]
    keys = tuple(text.partition("=")[0] for text in leg.value)
    kept = [text for text in run.overrides if text.partition("=")[0] not in keys]
    return [*kept, *leg.value, *joined, *folders]
