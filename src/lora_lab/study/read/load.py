"""Reading a sweep folder: sweep.json and, of each run, run.json, config.yaml and metrics.csv.

A sweep without a readable sweep.json is refused. Anything else that is missing, damaged or
foreign is named in the run's notes, and the rest of the sweep is read.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lora_lab.config.convert import spelled
from lora_lab.errors import ConfigError, LabError, printable
from lora_lab.files import read_json, read_yaml
from lora_lab.run_folder.choice_file import CHOICE_FILE, Choice, read_choice
from lora_lab.run_folder.listed_runs import listed_run
from lora_lab.run_folder.record import COMPLETE, ENDED_EARLY, FAILED
from lora_lab.run_folder.scores_file import SCORES_FILE, Anchors, read_anchors, read_scores
from lora_lab.statistics.family import EARLY_SHARE
from lora_lab.statistics.paired import Scores
from lora_lab.study.read.held_out_file import ImageLosses, read_image_losses, with_image_losses
from lora_lab.study.read.metrics_table import MetricsTable, empty_table, read_metrics


@dataclass(frozen=True)
class Record:
    """What run.json says, with nothing where it says nothing."""

    fingerprints: dict[str, str] = field(default_factory=dict)
    """images, captions, checkpoint, vae, latents -> digest."""
    versions: dict[str, str] = field(default_factory=dict)
    """Library -> version."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Phase of training, sampling, scoring, step_median or step_p95 -> seconds."""
    peak_memory_bytes: dict[str, float] = field(default_factory=dict)
    """process, device -> bytes."""
    lora_bytes: float = math.nan
    """Size of the final LoRA file in bytes."""
    git_commit: str = ""
    device: str = ""
    stack: int = 1
    """Runs that were trained in one pass with this one, itself included; 1: alone."""
    paused_at: int = 0
    """The step at which the run has paused, whether or not it went on; 0: it didn't."""
    total_steps: int = 0
    """Steps of the whole run, where it has paused; 0: not told."""


@dataclass(frozen=True)
class Run:
    """One run of a sweep, as far as it can be read."""

    name: str
    folder: Path
    value: str
    """The value of the parameter under study, as written on the command line."""
    is_base: bool
    seed: int | None
    status: str
    """complete, failed, ended early, unfinished or missing."""
    ended_early: str = ""
    """Why it ended early: ended early at step 40: worse by 12 % in held-out loss; else empty."""
    error: str = ""
    reused: bool = False
    config: dict[str, str] = field(default_factory=dict)
    """Flat resolved config: network.dim -> "8"; empty when it can't be read."""
    record: Record = field(default_factory=Record)
    metrics: MetricsTable = field(default_factory=empty_table)
    image_losses: ImageLosses = field(default_factory=ImageLosses)
    choice: Choice | None = None
    """Which of its LoRAs to use, where that was asked for."""
    scores: dict[str, Scores] = field(default_factory=dict)
    """Metric -> (cluster, unit) -> score, as config/metrics.py names them."""
    anchors: dict[str, Anchors] = field(default_factory=dict)
    """Metric of identity -> what the bare base reaches, and real pictures among each other."""
    notes: tuple[str, ...] = ()
    """What was missing or damaged, one sentence each."""

    @property
    def complete(self) -> bool:
        """Whether the run trained to its end."""
        return self.status == "complete"


@dataclass(frozen=True)
class SeedRound:
    """A look after which undecided values got more seeds."""

    look: int
    """Seeds of the values that were looked at."""
    seeds: tuple[int, ...]
    """Seeds that were added after it."""
    open: dict[str, str]
    """Value -> why it got them."""
    closed: dict[str, str]
    """Value -> why it didn't."""


@dataclass(frozen=True)
class Sweep:
    """A sweep folder."""

    folder: Path
    parameter: str
    values: tuple[str, ...]
    base_value: str
    overrides: tuple[str, ...]
    runs: tuple[Run, ...]
    launcher: tuple[str, ...] = ()
    """What the command line said of Hydra's launcher."""
    notes: tuple[str, ...] = ()
    """What concerns no single run."""
    planned_seeds: int = 0
    """Seeds that every value was trained under; 0 where sweep.json doesn't tell."""
    max_seeds: int | None = None
    """Seeds that an undecided value could get."""
    margin: float = math.nan
    """Share of the base's mean within which a value is as good; NaN where it isn't told."""
    rounds: tuple[SeedRound, ...] = ()
    error_share: float = 1.0
    """Part of the error rate that its verdicts may spend."""
    command: str = ""
    """What makes this comparison again where it comes from other logs; empty: `train.py -m`."""

    @property
    def base_runs(self) -> tuple[Run, ...]:
        """The runs of the base config, one a seed."""
        return tuple(run for run in self.runs if run.is_base)

    @property
    def value_runs(self) -> dict[str, tuple[Run, ...]]:
        """Value -> its runs, one a seed, in the order of sweep.json."""
        found: dict[str, tuple[Run, ...]] = {}
        for run in self.runs:
            if not run.is_base:
                found[run.value] = (*found.get(run.value, ()), run)
        return found

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that any run was trained under, in the order of sweep.json."""
        return tuple(dict.fromkeys(run.seed for run in self.runs if run.seed is not None))


def load_sweep(folder: Path) -> Sweep:
    """Read a sweep folder.

    Args:
        folder: The folder that holds sweep.json.

    Raises:
        ConfigError: There is no sweep in this folder.
        LabError: sweep.json can't be read or lacks what a comparison needs.
    """
    path = folder / "sweep.json"
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; name the folder of a sweep")
    if not path.is_file():
        raise ConfigError(f"{path} is missing; name a folder that `train.py -m` has written")
    sweep = _read_json(path)
    if not isinstance(sweep, dict) or not isinstance(sweep.get("runs"), list):
        raise LabError(f"{path} has no list of runs; run the sweep again to write it again")
    if not isinstance(sweep.get("parameter"), str) or not sweep["parameter"]:
        raise LabError(f"{path} names no parameter; run the sweep again to write it again")
    entries = [entry for entry in sweep["runs"] if isinstance(entry, dict)]
    if not entries:
        raise LabError(f"{path} lists no runs; run the sweep again to write it again")
    runs = tuple(load_run(folder, entry) for entry in entries)
    return Sweep(
        folder=folder,
        parameter=sweep["parameter"],
        values=tuple(as_text(value) for value in _list(sweep, "values")),
        base_value=as_text(sweep.get("base_value", "")),
        overrides=tuple(as_text(item) for item in _list(sweep, "overrides")),
        runs=runs,
        launcher=tuple(as_text(item) for item in _list(sweep, "launcher")),
        notes=_strangers(folder, runs),
        planned_seeds=len(_list(sweep, "seeds")),
        max_seeds=most if isinstance(most := sweep.get("max_seeds"), int) else None,
        margin=_numbers({"": sweep.get("margin")}).get("", math.nan),
        rounds=tuple(_round(one) for one in _list(sweep, "rounds") if isinstance(one, dict)),
        error_share=1.0 - EARLY_SHARE if sweep.get("early_end") is True else 1.0,
    )


def _round(entry: dict[str, Any]) -> SeedRound:
    look, seeds = entry.get("look"), _list(entry, "seeds")
    return SeedRound(
        look=look if isinstance(look, int) else 0,
        seeds=tuple(seed for seed in seeds if isinstance(seed, int)),
        open=_texts(entry.get("open")),
        closed=_texts(entry.get("closed")),
    )


def as_text(value: Any) -> str:
    """One line of text for a value from JSON or YAML, as Hydra's command line spells it.

    What doesn't print, and could move the cursor of who reads the report on a terminal, is a ``?``.
    """
    line = " ".join(spelled(value).split())
    return line if line.isprintable() else printable(line, len(line))


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except OSError as error:
        raise LabError(f"{path} could not be read ({error.strerror or error})") from error
    except ValueError as error:
        raise LabError(f"{path} is not complete JSON ({error}); run the sweep again") from error


def _list(mapping: dict[str, Any], key: str) -> list[Any]:
    value = mapping.get(key)
    return value if isinstance(value, list) else []


def _strangers(folder: Path, runs: tuple[Run, ...]) -> tuple[str, ...]:
    """Run folders inside the sweep folder that sweep.json doesn't list."""
    listed = {run.folder.resolve() for run in runs}
    found = sorted([*folder.glob("*/run.json"), *folder.glob("*/*/run.json")])
    return tuple(
        f"{path.parent.relative_to(folder)} holds a run that sweep.json doesn't list: "
        "it was left out"
        for path in found
        if path.parent.resolve() not in listed
    )


def load_run(sweep_folder: Path, entry: dict[str, Any]) -> Run:
    """Read what there is of one run that sweep.json lists.

    Raises:
        LabError: It lies elsewhere.
    """
    folder = listed_run(sweep_folder, entry)
    facts, notes = _read_facts(folder)
    config, problem = _read_config(folder / "config.yaml")
    notes += [problem] if problem and facts is not None else []
    losses = read_image_losses(folder / "held_out.csv")
    metrics = empty_table()
    if facts is not None:
        metrics = with_image_losses(read_metrics(folder / "metrics.csv"), losses)
    scores, problem = read_scores(folder / SCORES_FILE)
    notes += [problem] if problem else []
    status = _status(facts, str(entry.get("status", "")))
    ended = (facts or {}).get("ended_early")
    seed = entry.get("seed", (facts or {}).get("seed"))
    error = entry.get("error") or (facts or {}).get("error")
    return Run(
        name=as_text(entry.get("name") or folder.name),
        folder=folder,
        value=as_text(entry.get("value", "")),
        is_base=entry.get("role") == "base",
        seed=seed if isinstance(seed, int) else None,
        status=status,
        ended_early=_ended_early(ended) if status == ENDED_EARLY else "",
        error=as_text(error) if error and status != "complete" else "",
        reused=bool(entry.get("reused")),
        config=config,
        record=_record(facts or {}),
        metrics=metrics,
        image_losses=losses,
        choice=read_choice(folder / CHOICE_FILE),
        scores=scores | _of_losses(losses),
        anchors=read_anchors(folder / SCORES_FILE),
        notes=(*notes, *metrics.notes),
    )


def _ended_early(told: Any) -> str:
    """Where and why a run ended early, in the words of its sweep."""
    reason = told.get("reason") if isinstance(told, dict) else None
    return as_text(reason) if isinstance(reason, str) and reason else ENDED_EARLY


def _of_losses(losses: ImageLosses) -> dict[str, Scores]:
    """The metrics that held_out.csv holds."""
    found = {"held_out_loss": losses.units, "memorisation": losses.memorisation}
    return {name: scores for name, scores in found.items() if scores}


def _read_facts(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """run.json as a mapping, or None with the reason."""
    try:
        facts = _read_json(folder / "run.json")
    except LabError as error:
        # A run that isn't there is told by its status; a damaged record needs a reason.
        return None, [str(error)] if (folder / "run.json").exists() else []
    if not isinstance(facts, dict):
        return None, [f"{folder.name}/run.json holds no mapping"]
    return facts, []


def _status(facts: dict[str, Any] | None, listed: str) -> str:
    """One word for how the run ended; the run's own record is believed first."""
    if facts is None:
        return "failed" if listed == "failed" else "missing"
    status = str(facts.get("status", ""))
    if status in (COMPLETE, FAILED, ENDED_EARLY):
        return status
    return "failed" if listed == "failed" else "unfinished"


def _read_config(path: Path) -> tuple[dict[str, str], str]:
    """The flat config, or an empty one with the reason."""
    try:
        tree = read_yaml(path)
    except FileNotFoundError:
        return {}, f"{path.name} is missing"
    except OSError as error:
        return {}, f"{path.name} could not be read ({error.strerror or error})"
    except ValueError:
        return {}, f"{path.name} is not YAML"
    if not isinstance(tree, dict):
        return {}, f"{path.name} holds no mapping"
    return _flat(tree), ""


def _flat(tree: dict[Any, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = as_text(value)
    return flat


def _record(facts: dict[str, Any]) -> Record:
    return Record(
        fingerprints=_texts(facts.get("fingerprints")),
        versions=_texts(facts.get("versions")),
        seconds=_numbers(facts.get("seconds")),
        peak_memory_bytes=_numbers(facts.get("peak_memory_bytes")),
        lora_bytes=_numbers({"": facts.get("lora_bytes")}).get("", math.nan),
        git_commit=as_text(facts.get("git_commit") or ""),
        device=as_text(facts.get("device") or ""),
        stack=_stack(facts.get("stack")),
        paused_at=_whole(facts.get("paused_at")),
        total_steps=_whole(facts.get("total_steps")),
    )


def _whole(value: Any) -> int:
    """A number of steps; 0 for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _stack(value: Any) -> int:
    """With how many runs a run was trained, as training/stacked_run.py records it."""
    runs = value.get("runs") if isinstance(value, dict) else None
    return runs if isinstance(runs, int) and not isinstance(runs, bool) and runs > 1 else 1


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {str(key): as_text(item) for key, item in value.items() if item is not None}


def _numbers(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        return {}
    return {
        str(key): float(item)
        for key, item in value.items()
        if isinstance(item, int | float) and not isinstance(item, bool)
    }
