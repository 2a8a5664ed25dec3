"""Hydra's launcher of stacks: hands several runs at a time to the workers of another launcher.

A worker gets a stack as one job. Hydra composes that job from the first run's settings; the task
then composes the others and trains them all at once. Jobs that train nothing go to the workers one
by one.
"""

import copy
import importlib.util
import logging
import os
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, configure_log, run_job
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from lora_lab.cli import task
from lora_lab.cli.image_jobs import image_job
from lora_lab.cli.log_lines import LinesOfRuns
from lora_lab.cli.preflight import checked_train_config
from lora_lab.config import TrainConfig
from lora_lab.config.convert import without_hydra
from lora_lab.errors import ConfigError, one_line
from lora_lab.run_folder.record import run_name
from lora_lab.training.stack_plan import LARGEST, even, make_stacks, stacks_told

if TYPE_CHECKING:
    from lora_lab.training.stacked_run import StackedRun

log = logging.getLogger(__name__)

JOBLIB = "hydra_plugins.hydra_joblib_launcher"
IN_THIS_PROCESS = {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}


class StackLauncher(Launcher):
    """Groups jobs into stacks, which the workers of another launcher train.

    Args:
        stack: Runs that are trained at once at most; None: as many as there is memory for.
        within: Settings of the launcher whose workers get the stacks.
    """

    def __init__(self, stack: int | None, within: DictConfig) -> None:
        super().__init__()
        self.stack = stack
        self.within = OmegaConf.create(OmegaConf.to_container(within, resolve=False))
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.task_function: TaskFunction | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra has composed.

        Raises:
            ConfigError: A stack of no run.
        """
        if not isinstance(self.stack, int | None) or (self.stack is not None and self.stack < 1):
            raise ConfigError(
                f"hydra.launcher.stack must be >= 1, or null for as many as fit, got {self.stack}"
            )
        self.config = config
        self.hydra_context = hydra_context
        self.task_function = task_function

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Train the runs and return how each ended, in the order of the jobs."""
        assert self.config is not None and self.hydra_context is not None
        assert self.task_function is not None
        if self.task_function is image_job:
            workers = self._workers(self._settings(job_overrides[0]))
            return self._inner(workers, image_job).launch(job_overrides, initial_job_idx)
        settings = [self._settings(overrides) for overrides in job_overrides]
        workers = self._workers(settings[0])
        stacks, lines = make_stacks(settings, self.stack, workers)
        for line in lines:
            log.info("%s", line)
        at_a_time = workers if self._is_joblib else None
        log.info("%s", stacks_told([len(stack) for stack in stacks], at_a_time))
        if all(len(stack) == 1 for stack in stacks):
            log.info("stacks of one run: as without hydra/launcher=stacked")
        jobs = [[list(job_overrides[number]) for number in stack] for stack in stacks]
        stacked = StackTask(
            self.task_function, self.hydra_context, self.config, jobs, self.stack, workers
        )
        launcher = self._inner(workers, stacked)
        firsts = [stack[0] for stack in jobs]
        results: list[JobReturn | None] = [None] * len(settings)
        for stack, done in zip(stacks, launcher.launch(firsts, 0), strict=True):
            returned = _returns(done, len(stack))
            for number, one in zip(stack, returned, strict=True):
                results[number] = one
        return [one for one in results if one is not None]

    def _settings(self, overrides: Sequence[str]) -> TrainConfig:
        assert self.config is not None and self.hydra_context is not None
        loader = self.hydra_context.config_loader
        config = loader.load_sweep_config(self.config, list(overrides))
        return checked_train_config(without_hydra(config))

    def _inner(self, workers: int, task_function: TaskFunction) -> Launcher:
        """The launcher whose workers do a task."""
        assert self.config is not None and self.hydra_context is not None
        outer = copy.deepcopy(self.config)
        with open_dict(outer):
            outer.hydra.launcher = self._within(workers)
        return Plugins.instance().instantiate_launcher(
            hydra_context=self.hydra_context, task_function=task_function, config=outer
        )

    def _workers(self, settings: TrainConfig) -> int:
        """How many stacks are trained beside each other."""
        if not self._is_joblib:
            return 1  # a cluster has as many workers as there are stacks
        asked = int(self.within.n_jobs)
        if asked > 0:
            return asked
        if settings.trainer.accelerator != "cpu" and _has_gpu():
            return 1
        return max(1, (os.cpu_count() or 1) // max(1, settings.trainer.threads or 1))

    @property
    def _is_joblib(self) -> bool:
        return str(self.within._target_).startswith(JOBLIB)

    def _within(self, workers: int) -> Any:
        """Settings of the launcher that gets the stacks."""
        if not self._is_joblib:
            return self.within
        if workers == 1:
            return OmegaConf.create(IN_THIS_PROCESS)
        if importlib.util.find_spec(JOBLIB) is None:
            log.info("%s isn't installed: all stacks are trained in this process", JOBLIB)
            return OmegaConf.create(IN_THIS_PROCESS)
        return OmegaConf.merge(self.within, {"n_jobs": workers})


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _returns(done: JobReturn, count: int) -> list[JobReturn]:
    """What the runs of a stack returned; its own failure for each when it came to no end."""
    value = done._return_value
    return value if isinstance(value, list) else [done] * count


class StackTask:
    """The task of a worker: trains the runs of a stack.

    Args:
        task_function: Trains one run.
        hydra_context: Composes settings.
        config: The command's settings.
        stacks: Overrides of each run, stack by stack.
        most: Runs that are trained at once at most; None: as many as there is memory for.
        workers: How many of them share a machine's memory.
    """

    def __init__(
        self,
        task_function: TaskFunction,
        hydra_context: HydraContext,
        config: DictConfig,
        stacks: list[list[list[str]]],
        most: int | None,
        workers: int,
    ) -> None:
        self.task_function = task_function
        self.hydra_context = hydra_context
        self.config = config
        self.stacks = stacks
        self.most = most
        self.workers = workers

    def __call__(self, config: DictConfig) -> list[JobReturn]:
        """Train the stack that the job's number names."""
        number = int(HydraConfig.get().job.num)
        first = sum(len(stack) for stack in self.stacks[:number])
        outer: Any = HydraConfig.instance().cfg
        jobs = [
            partial(self._run, overrides, first + index)
            for index, overrides in enumerate(self.stacks[number])
        ]
        try:
            return [jobs[0](None)] if len(jobs) == 1 else self._together(number, jobs)
        finally:
            HydraConfig.instance().cfg = outer
            configure_log(outer.hydra.job_logging, outer.hydra.verbose)

    def _together(self, number: int, jobs: list[Any]) -> list[JobReturn]:
        """Train as many runs at once as there is memory for, until all are trained."""
        from lora_lab.training.stack import train_together
        from lora_lab.training.stack_memory import measure_memory

        compose = self.hydra_context.config_loader.load_sweep_config
        settings = [
            checked_train_config(without_hydra(compose(self.config, overrides)))
            for overrides in self.stacks[number]
        ]
        memory = measure_memory(settings, task.shared_inputs(), self.workers)
        size = memory.largest(self.most, len(jobs), LARGEST)
        if size < len(jobs):
            log.info("memory for %d runs at once: %d runs in turns", size, len(jobs))
        results: list[JobReturn] = []
        for part in even([*range(len(jobs))], -(-len(jobs) // size)):
            names = [f"stack {number}, run {index}" for index in part]
            own = [jobs[index] for index in part]
            results += train_together(own, names, memory.of(len(own)))
        return results

    def _run(self, overrides: list[str], number: int, stacked: "StackedRun | None") -> JobReturn:
        """One run of the stack as Hydra runs a job."""
        loader = self.hydra_context.config_loader
        config = loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        HydraConfig.instance().set_config(config)
        _log_beside_others(config)
        task.enter(stacked)
        try:
            return run_job(
                task_function=self.task_function,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                hydra_context=self.hydra_context,
                configure_logging=False,
            )
        finally:
            _end_log()


_RUN_OF_THREAD: dict[int, str] = {}
"""Thread -> name of the run of a stack that it trains now."""


class _OfThread(logging.Filter):
    """Lets through what one thread says."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is the thread's."""
        return record.thread == self.thread


def _log_beside_others(config: DictConfig) -> None:
    """Give this thread's run a log file of its own and its name on the terminal."""
    root = logging.getLogger()
    others = [handler for handler in root.handlers if _filtered(handler)]
    folder = os.path.join(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir))
    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = os.path.abspath(folder)
    os.makedirs(folder, exist_ok=True)
    configure_log(config.hydra.job_logging, config.hydra.verbose)
    _RUN_OF_THREAD[threading.get_ident()] = one_line(run_name(Path(folder)))
    for handler in root.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.addFilter(_OfThread())
        else:
            handler.setFormatter(LinesOfRuns(handler.formatter, _RUN_OF_THREAD))
    for handler in others:
        root.addHandler(handler)


def _end_log() -> None:
    """Close the log file of this thread's run: a later thread may have the same number."""
    root, this = logging.getLogger(), threading.get_ident()
    _RUN_OF_THREAD.pop(this, None)
    for handler in list(root.handlers):
        if any(isinstance(one, _OfThread) and one.thread == this for one in handler.filters):
            root.removeHandler(handler)
            handler.close()


def _filtered(handler: Any) -> bool:
    return any(isinstance(one, _OfThread) for one in handler.filters)
