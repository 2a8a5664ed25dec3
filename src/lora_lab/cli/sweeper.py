"""The sweep: the base and each value of one parameter, then grids and the comparison.

Works with every Hydra launcher: runs are handed to it as ordinary jobs.
"""

import importlib
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from lora_lab.cli.ending import HEARD
from lora_lab.cli.image_jobs import RunImages, image_job, image_overrides
from lora_lab.cli.launcher_choice import GROUP, PREFIX
from lora_lab.cli.messages import COMPOSITION_ERRORS, explain_overrides
from lora_lab.cli.preflight import refuse_file
from lora_lab.cli.sweep_early_end import end_worse_values, first_leg, second_leg
from lora_lab.cli.sweep_end import Launch, finish_sweep
from lora_lab.cli.sweep_plan import (
    Leg,
    Plan,
    PlannedRun,
    folder_name,
    launch_overrides,
    make_plan,
    spelled,
)
from lora_lab.cli.sweep_record import (
    Round,
    RunEntry,
    planned_entries,
    read_parameter,
    settle_entry,
    write_record,
)
from lora_lab.cli.sweep_rounds import added_runs, next_round
from lora_lab.cli.task import shared_inputs
from lora_lab.config import TrainConfig
from lora_lab.errors import ConfigError, LabError, first_line
from lora_lab.run_folder.folder import Refused, RunFolder
from lora_lab.run_folder.locks import LOCK, hold
from lora_lab.run_folder.record import COMPLETE, PAUSED

log = logging.getLogger(__name__)

PLACEHOLDER = "{parameter}"
"""Stands for the swept parameter in hydra.sweep.dir."""


@dataclass(frozen=True)
class Place:
    """Where a sweep goes, and which of its runs are there already."""

    folder: Path
    """The sweep folder."""
    present: dict[str, Path]
    """Names of complete runs that are reused, and their folders."""
    opened: dict[str, RunFolder]
    """Names of the other runs, and the folders that they are trained in."""


class ParameterSweeper(Sweeper):
    """Hydra's sweeper for one parameter, with the base beside it.

    Args:
        max_batch_size: How many jobs a launcher gets at once; None: all.
        params: Parameter and values of a ready-made study.
        together: Settings that change together, one mapping a value; with params the command line
            or params go first.
        by_model: Name of a base model -> params or together that it needs in place of these.
    """

    def __init__(
        self,
        max_batch_size: int | None,
        params: dict[str, str] | None,
        together: list[dict[str, Any]] | None,
        by_model: dict[str, dict[str, Any]] | None,
    ) -> None:
        super().__init__()
        self.max_batch_size = max_batch_size
        self.study = {"params": params, "together": together}
        self.by_model = by_model or {}
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra has composed and make the launcher that was chosen."""
        self.config = config
        self.hydra_context = hydra_context
        self.task_function = task_function
        self._make_launcher(task_function)

    def _make_launcher(self, task_function: TaskFunction) -> Launcher:
        """Make the launcher that was chosen, with the sweep folder as it is known now.

        Args:
            task_function: What its workers do.

        Raises:
            ConfigError: Its package isn't installed.
        """
        assert self.config is not None and self.hydra_context is not None
        name = str(self.config.hydra.launcher._target_)
        try:
            importlib.import_module(name.rpartition(".")[0])
            return Plugins.instance().instantiate_launcher(
                hydra_context=self.hydra_context,
                task_function=task_function,
                config=self.config,
            )
        except ImportError as error:
            choice = self.config.hydra.runtime.choices["hydra/launcher"]
            raise ConfigError(
                f"hydra/launcher={choice} needs a package that isn't installed ({error}); "
                "install it: pip install -c constraints.txt -e '.[scale]'"
            ) from error

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep, write sweep.json, and end with grids and report.

        Args:
            arguments: The command line's overrides, without Hydra's own.

        Returns:
            What the jobs returned.

        Raises:
            ConfigError: Any run has wrong settings; nothing was started.
            LabError: The sweep folder can't be written.
            SystemExit: With 1, when a run, the grids or the report failed.
        """
        assert self.config is not None
        study = study_of(self.study, self.by_model, str(self.config.model.name))
        refuse_hydra_keys(study)
        named = [f"{key}={values}" for key, values in (study.get("params") or {}).items()]
        overrides = OverridesParser.create().parse_overrides([*named, *arguments])
        together = [
            {str(key): spelled(value) for key, value in row.items()}
            for row in study.get("together") or []
        ]
        plan = make_plan(overrides, self._compose, together)
        plan = replace(plan, launcher=_launcher_overrides(self.config))
        place = find_place(str(self.config.hydra.sweep.dir), plan)
        with hold(place.folder / LOCK, "wait until it ends, or choose another hydra.sweep.dir"):
            entries = planned_entries(plan.runs, place.present, place.folder)
            write_record(place.folder, plan, entries)
            _announce(plan, place)
            results = self._train(plan, place, entries)
            write_record(place.folder, plan, entries)
            launch = partial(self._launch_images, plan, place.folder, {})
            results += self._add_seeds(plan, place.folder, entries, launch)
            if not finish_sweep(place.folder, plan.base.config, entries, launch):
                sys.stdout.flush()
                raise SystemExit(1)
        return [results]

    def _compose(self, overrides: list[str]) -> DictConfig:
        assert self.config is not None and self.hydra_context is not None
        try:
            return self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        except COMPOSITION_ERRORS as error:
            sources = self.config.hydra.runtime.config_sources
            folders = [Path(source.path) for source in sources if source.schema == "file"]
            lines = explain_overrides(folders, TrainConfig, overrides, sweeping=False)
            raise ConfigError(*lines or [first_line(error)]) from error

    def _train(self, plan: Plan, place: Place, entries: list[RunEntry]) -> list[JobReturn]:
        """Train the planned runs; with `study.early_end` in two legs, between which values end.

        Raises:
            LabError: The sweep folder can't be written, or what the runs left can't be read.
        """
        if not plan.base.config.study.early_end:
            return self._launch(plan, plan.runs, place, entries)
        first = first_leg(plan, place.opened, entries)
        results = self._launch(plan, first, place, entries, pause=True)
        write_record(place.folder, plan, entries)
        end_worse_values(place.folder, plan, entries, open_run)
        write_record(place.folder, plan, entries)
        return results + self._launch(plan, second_leg(plan, entries), place, entries)

    def _add_seeds(
        self, plan: Plan, folder: Path, entries: list[RunEntry], launch: Launch
    ) -> list[JobReturn]:
        """Train the values that are undecided under more seeds, round by round.

        Raises:
            LabError: The folder of an added run holds another run.
        """
        from lora_lab.statistics.family import look_counts  # imports NumPy: --help stays fast

        results: list[JobReturn] = []
        rounds: list[Round] = []
        counts = look_counts(len(plan.seeds), plan.base.config.study.max_seeds)
        for look, after in pairwise(counts):
            if all(entry.error is not None for entry in entries):
                break
            rounds.append(next_round(folder, plan.base.config, look, after, launch))
            added = added_runs(plan, rounds[-1])
            place = _examine(folder, added, plan)
            if isinstance(place, str):
                raise LabError(f"no seeds can be added: {place}")
            entries += planned_entries(added, place.present, folder)
            write_record(folder, plan, entries, rounds)
            results += self._launch(plan, added, place, entries)
            write_record(folder, plan, entries, rounds)
            if not added:
                break
        return results

    def _launch(
        self,
        plan: Plan,
        runs: Sequence[PlannedRun],
        place: Place,
        entries: list[RunEntry],
        pause: bool = False,
    ) -> list[JobReturn]:
        """Run what isn't there yet, up to its pause or its end, and settle its entries."""
        assert self.task_function is not None
        waiting = [run for run in runs if run.name not in place.present]
        if not waiting:
            return []
        folder = self._enter(place.folder)
        launcher = self._make_launcher(self.task_function)
        group = wandb_group(plan.base.config, place.folder)
        by_name = {entry.name: entry for entry in entries}
        paused = {name for name, entry in by_name.items() if entry.status == PAUSED}
        jobs = [
            launch_overrides(run, folder, group, _leg(pause, run.name in paused)) for run in waiting
        ]
        size = self.max_batch_size or len(jobs)
        results: list[JobReturn | str] = []
        for start in range(0, len(jobs), size):
            results += _launch_batch(launcher, jobs[start : start + size], start)
        ends = (PAUSED, COMPLETE) if pause else (COMPLETE,)
        for run, result in zip(waiting, results, strict=True):
            broken_off, error = isinstance(result, str), _outcome_error(result)
            settle_entry(by_name[run.name], error, place.folder, broken_off, ends)
        return [result for result in results if not isinstance(result, str)]

    def _enter(self, folder: Path) -> str:
        """Tell the launcher the sweep folder; a launcher's processes may start elsewhere."""
        assert self.config is not None
        with open_dict(self.config):
            self.config.hydra.sweep.dir = str(folder.absolute())
        return str(folder.absolute())

    def _launch_images(
        self, plan: Plan, folder: Path, done: dict[str, RunImages], runs: list[str]
    ) -> list[RunImages | str]:
        """Have the images of some runs drawn and scored by the launcher's workers.

        A launcher that breaks off tells nothing of its other jobs, so all that came to no end are
        handed over again: images that are there are found. Then one by one, so that a run whose
        worker dies every time takes no other with it.

        Args:
            plan: What the sweep runs.
            folder: The sweep folder.
            done: What came of images so far; learns what comes of these.
            runs: Folders of the runs, relative to the sweep folder.

        Returns:
            What came of each, or why its job came to no end.
        """
        sweep_dir = self._enter(folder)
        failed: dict[str, str] = {}
        waiting = [run for run in runs if run not in done]
        most = self.max_batch_size or len(runs)
        for size in (most, most, 1):
            lost: list[str] = []
            for start in range(0, len(waiting), size):
                part = waiting[start : start + size]
                jobs = [image_overrides(plan.base, sweep_dir, run) for run in part]
                launcher = self._make_launcher(image_job)
                for run, result in zip(part, _launch_batch(launcher, jobs, start), strict=True):
                    if isinstance(result, str):
                        lost.append(run)
                        failed[run] = f"the launcher broke off: {result}"
                    elif result.status == JobStatus.COMPLETED:
                        done[run] = result._return_value
                    else:
                        failed[run] = _reason(result._return_value)
            waiting = lost
            if lost and size > 1:
                log.warning(
                    "%s; the images of %s are drawn again", failed[lost[0]], ", ".join(lost)
                )
        return [done[run] if run in done else failed[run] for run in runs]


def _leg(pause: bool, paused: bool) -> Leg:
    """Which part of its steps a run takes."""
    if pause:
        return Leg.FIRST
    return Leg.SECOND if paused else Leg.WHOLE


def _launch_batch(
    launcher: Launcher, jobs: list[list[str]], first: int
) -> Sequence[JobReturn | str]:
    """Return what the jobs returned; if the launcher breaks, its reason for each of them.

    A worker that is killed for want of memory ends joblib and submitit with an exception, while
    other jobs of the batch may be complete: their run folders tell.
    """
    try:
        return launcher.launch(jobs, initial_job_idx=first)
    except LabError:
        raise
    except Exception as error:
        HEARD.again()
        log.debug("the launcher failed", exc_info=True)
        return [f"{type(error).__name__}: {' '.join(str(error).split())}"] * len(jobs)


def study_of(
    study: dict[str, Any], by_model: dict[str, dict[str, Any]], model: str
) -> dict[str, Any]:
    """Return a ready-made study's values, or those that a base model needs in their place."""
    chosen = by_model.get(model, study)
    plain = OmegaConf.to_container(OmegaConf.create(chosen))
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def refuse_hydra_keys(study: dict[str, Any]) -> None:
    """Refuse a study that would set Hydra's own keys, which files may not.

    Raises:
        ConfigError: Names the first of them.
    """
    rows = [study.get("params") or {}, *(study.get("together") or [])]
    for key in (str(key) for row in rows for key in row):
        if re.match(r"\W*hydra\b", key):
            raise ConfigError(
                f"hydra.sweeper.params and together must name settings of a run, got {key}; "
                "give it on the command line"
            )


def _outcome_error(result: JobReturn | str) -> str | None:
    """Return why a job failed, in one line; None when it came to its end."""
    if isinstance(result, str):
        return f"the launcher broke off: {result}"
    value = result._return_value
    return value.error if result.status == JobStatus.COMPLETED else _reason(value)


def _reason(error: object) -> str:
    """Why a job failed, in one line."""
    text = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def wandb_group(base: TrainConfig, folder: Path) -> str | None:
    """Return the group that a sweep's runs join; None when it is set already or not needed."""
    wanted = base.logger.wandb.enabled and base.logger.wandb.group is None
    return folder.name if wanted else None


def find_place(template: str, plan: Plan) -> Place:
    """Find the folder of a sweep and the runs that are there already.

    With the default template, the same sweep goes on in its folder and another one of the same
    parameter gets the next number. A folder that was named is refused when it holds other runs.

    Args:
        template: hydra.sweep.dir, in which ``{parameter}`` stands for the parameter.
        plan: What is to be run.

    Raises:
        ConfigError: The named folder holds other runs.
        LabError: The images or the base checkpoint can't be read.
    """
    if PLACEHOLDER not in template:
        place = _examine(Path(template), plan.runs, plan)
        if isinstance(place, str):
            raise ConfigError(
                f"hydra.sweep.dir={template} can't be used: {place}; choose another folder "
                "or remove this one"
            )
        return place
    first = template.replace(PLACEHOLDER, folder_name([plan.parameter]))
    for number in count(1):
        place = _examine(Path(first if number == 1 else f"{first}-{number}"), plan.runs, plan)
        if isinstance(place, Place):
            return place
        log.info("%s", place)
    raise AssertionError("count() ends never")


def _examine(folder: Path, runs: Sequence[PlannedRun], plan: Plan) -> Place | str:
    """Return the sweep's place in a folder, or why it has none there."""
    try:
        refuse_file(folder)
    except ConfigError as error:
        return str(error)
    parameter = read_parameter(folder)
    if parameter not in (None, plan.parameter):
        return f"{folder} holds a sweep over {parameter}"
    elsewhere = [*_runs_below(folder, depth=2), *_shared_folders(folder, plan.base.config)]
    present: dict[str, Path] = {}
    opened: dict[str, RunFolder] = {}
    for run in runs:
        own = folder / run.name
        try:
            run_folder = open_run(own, run.config)
        except Refused as refusal:
            return refusal.reason
        if run_folder.is_complete:
            present[run.name] = own
        elif not own.exists() and (found := _find_complete(elsewhere, run.config)):
            present[run.name] = found
        else:
            opened[run.name] = run_folder
    return Place(folder, present, opened)


def open_run(folder: Path, config: TrainConfig) -> RunFolder:
    """A run's folder; PyTorch is imported only when it holds a run of the same settings.

    Raises:
        Refused: It holds another run.
        LabError: The images or the base checkpoint can't be read.
    """
    return RunFolder.open(folder, config, lambda settings: shared_inputs().fingerprints(settings))


def _find_complete(folders: Sequence[Path], config: TrainConfig) -> Path | None:
    """Return the first of some folders that holds the same complete run."""
    for folder in folders:
        try:
            if open_run(folder, config).is_complete:
                return folder
        except Refused:
            continue
    return None


def _shared_folders(folder: Path, base: TrainConfig) -> list[Path]:
    """Return run folders of other sweeps, below study.reuse_from, that this one may share."""
    if base.study.reuse_from is None:
        return []
    root = Path(base.study.reuse_from).expanduser()
    if root.resolve() not in folder.resolve().parents:
        return []
    inside = folder.resolve()
    return [run for run in _runs_below(root, depth=3) if inside not in run.resolve().parents]


def _runs_below(root: Path, depth: int) -> list[Path]:
    """Return the run folders at most so many levels below a folder."""
    levels = ["/".join("*" * level) for level in range(1, depth + 1)]
    return sorted(path.parent for level in levels for path in root.glob(f"{level}/run.json"))


def _announce(plan: Plan, place: Place) -> None:
    new = [run.name for run in plan.runs if run.name not in place.present]
    log.info("%s: %d runs in %s", plan.parameter, len(plan.runs), place.folder)
    for name, found in place.present.items():
        log.info("  %s is there already: %s", name, found)
    if new:
        log.info("  to train: %s", ", ".join(new))


def _launcher_overrides(config: DictConfig | None) -> tuple[str, ...]:
    """What the command line says of the launcher, in its order."""
    given = config.hydra.overrides.hydra if config is not None else []
    return tuple(
        text for text in map(str, given) if text.lstrip("+").startswith((f"{GROUP}=", PREFIX))
    )
