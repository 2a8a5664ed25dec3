"""Opening a run folder, in one place: is the run new, complete, to be resumed, or refused?

`RunFolder.open` answers and changes nothing. Files are written from `begin` on, which comes when
the inputs are read and the settings have proved right: a refusal leaves the folder as it was.
"""

import dataclasses
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

from lora_lab.config import TrainConfig
from lora_lab.errors import ConfigError, LabError, clipped
from lora_lab.files import (
    flush,
    make_folder,
    open_regular,
    remove_leftovers,
    sha256_file,
    write_error,
    write_json,
    write_text,
)
from lora_lab.run_folder.identity import (
    code_version,
    config_key,
    hardware,
    influential,
    reuse_key,
    versions,
)
from lora_lab.run_folder.locks import LOCK, hold
from lora_lab.run_folder.record import (
    COMPLETE,
    CONFIG,
    ENDED_EARLY,
    FAILED,
    OVERRIDES,
    PAUSED,
    RECORD,
    RUNNING,
    config_text,
    git_commit,
    read_facts,
    read_settings,
)

log = logging.getLogger(__name__)

CHECKPOINT = "last.ckpt"
LORAS = "lora"
TABLES = ("metrics.csv", "held_out.csv")
"""Files that grow by a row at a time."""
LEFT_BY_A_RUN = (
    *(CHECKPOINT, "metrics.csv", "held_out.csv", "images", "grids", "tensorboard", "wandb"),
)
"""What a run leaves in its folder beside its LoRA files and its record."""
OWN_FILES = (RECORD, CONFIG, OVERRIDES, LORAS, *LEFT_BY_A_RUN)
"""Names that a run folder consists of."""
NEXT_STEP = "choose another hydra.run.dir or hydra.sweep.dir, or replace it with overwrite=true"

Fingerprints = Callable[[TrainConfig], dict[str, str]]
"""Reads the inputs of a run: sha256 of images, captions, checkpoint and vae."""


class Refused(ConfigError):
    """The folder holds another run, which stays as it is.

    Args:
        reason: Names the folder and what is in the way.
        next_step: What can be done.
    """

    def __init__(self, reason: str, next_step: str = NEXT_STEP) -> None:
        super().__init__(f"{reason}; {next_step}")
        self.reason = reason


class State(Enum):
    """What a folder is to a run."""

    NEW = "new"
    """Nothing that took time to make: empty, or a run that failed before its first step."""
    UNFINISHED = "unfinished"
    """This very run, broken off or paused after it had saved something."""
    PAUSED = "paused"
    """This very run, trained to its pause now."""
    COMPLETE = "complete"
    """This very run, whole."""
    REPLACED = "replaced"
    """Another run, which ``overwrite=true`` gives away."""


class RunFolder:
    """A folder in which one run may be trained, or is complete; made by ``open``.

    Args:
        path: The folder, which need not exist.
        config: The run's settings.
        state: What the folder is to the run.
        facts: What its run.json said; None when there was none.
    """

    def __init__(
        self, path: Path, config: TrainConfig, state: State, facts: dict[str, Any] | None
    ) -> None:
        self.path = path
        self.config = config
        self.state = state
        self.found = facts
        self.facts: dict[str, Any] = dict(facts or {})
        self.begun = False

    @classmethod
    def open(cls, path: Path, config: TrainConfig, fingerprints: Fingerprints) -> "RunFolder":
        """Decide what a folder is to a run; nothing is changed.

        A complete run of the same settings, inputs, code, packages and hardware is used again. An
        unfinished one goes on if ``config.resume``. Any other run is refused, unless
        ``config.overwrite`` gives it away.

        Args:
            path: The run folder, which need not exist.
            config: What would be trained.
            fingerprints: Called only when the folder's run has the same settings.

        Raises:
            Refused: The folder holds something else; says what differs.
            LabError: The inputs can't be read.
        """
        facts = read_facts(path)
        if (path / "sweep.json").exists():
            raise Refused(f"{path} holds a sweep", "choose another hydra.run.dir")
        if facts is None:
            own = next((name for name in OWN_FILES if (path / name).exists()), None)
            if own is not None and not config.overwrite:
                raise Refused(f"{path} holds {own}, but no run")
            return cls(path, config, State.NEW if own is None else State.REPLACED, None)
        complete = facts.get("status") == COMPLETE
        if not complete and not _has_saved(path):
            return cls(path, config, State.NEW, facts)
        if not complete and config.overwrite:
            return cls(path, config, State.REPLACED, facts)
        difference = _other_settings(path, config, facts)
        if difference is None:
            difference = _other_inputs(config, facts, fingerprints(config))
        folder = cls(path, config, State.COMPLETE if complete else State.UNFINISHED, facts)
        if difference is None and complete:
            difference = folder._missing_lora()
        if difference is not None and config.overwrite:
            return cls(path, config, State.REPLACED, facts)
        if difference is not None:
            raise Refused(f"{path} {difference}")
        if not complete and not config.resume:
            raise Refused(
                f"{path} holds an interrupted run", f"resume it with resume=true, or {NEXT_STEP}"
            )
        return folder

    @property
    def is_complete(self) -> bool:
        """Whether the folder holds this very run, whole."""
        return self.state is State.COMPLETE

    @property
    def is_paused(self) -> bool:
        """Whether the run has come to its pause in this process."""
        return self.state is State.PAUSED

    @property
    def paused_at(self) -> int | None:
        """The step at which this very run has paused, also if it went on since; None: not yet."""
        step = self.facts.get("paused_at")
        return step if self.state is State.UNFINISHED and type(step) is int else None

    @property
    def checkpoint(self) -> Path | None:
        """What the run goes on from; None when it begins at its first step."""
        path = self.path / CHECKPOINT
        return path if self.state is State.UNFINISHED and path.is_file() else None

    @property
    def lora(self) -> Path:
        """The final LoRA file."""
        return self.path / LORAS / f"{self.config.output_name}.safetensors"

    def _missing_lora(self) -> str | None:
        """What a complete run lacks; None when its LoRA file is the one that was trained."""
        if not self.lora.is_file():
            return "holds this run, complete but without its LoRA file"
        if self.facts.get("lora_sha256") not in (None, sha256_file(self.lora)):
            return "holds this run, complete but with another or a damaged LoRA file"
        return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for the block, and record how the block fails.

        A wrong setting that shows before ``begin`` leaves no trace.

        Raises:
            Locked: Another process trains in the folder.
            Refused: Another process has used it since it was opened.
            LabError: The folder isn't writable.
        """
        lock = self.path / LOCK
        had_folder, had_lock = self.path.is_dir(), lock.exists()
        with hold(lock, "wait until it ends, or choose another hydra.run.dir"):
            try:
                if read_facts(self.path) != self.found:
                    raise Refused(
                        f"{self.path} was used by another process meanwhile", "start again"
                    )
                yield
            except ConfigError as error:
                if self.begun:
                    self.fail(error)
                elif not had_lock:
                    lock.unlink(missing_ok=True)
                if not had_folder and not any(self.path.iterdir()):
                    self.path.rmdir()
                raise
            except BaseException as error:
                self.fail(error)
                raise

    def begin(self, fingerprints: dict[str, str], overrides: str | None = None) -> None:
        """Record what is asked for and what it is made of; clear what is to be replaced.

        Args:
            fingerprints: Of everything that is read.
            overrides: Text of overrides.yaml; None writes none.

        Raises:
            LabError: The folder isn't writable.
        """
        if self.checkpoint is not None:
            log.info("resuming the interrupted run in %s", self.path)
        else:
            self._clear()
        self._record(
            overrides,
            hardware=hardware(self.config),
            code=code_version(),
            fingerprints=fingerprints,
            reuse_key=reuse_key(self.config, fingerprints),
        )

    def _clear(self) -> None:
        """Remove the LoRA files of a run that begins anew, or all that a replaced run has left."""
        names: tuple[str, ...] = ()
        if self.state is State.REPLACED:
            log.warning("%s: what another run left is replaced, as overwrite=true asks", self.path)
            names = LEFT_BY_A_RUN
        try:
            for path in (self.path / LORAS).glob("*.safetensors"):
                path.unlink()
            for path in (self.path / name for name in names):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise write_error(self.path, error) from error

    def _record(self, overrides: str | None, **identity: Any) -> None:
        self.begun = True
        paused = {} if self.checkpoint is None else _pause_of(self.facts)
        make_folder(self.path)
        for part in (self.path, self.path / LORAS):
            remove_leftovers(part)
        write_text(self.path / CONFIG, config_text(self.config))
        if overrides is not None:
            write_text(self.path / OVERRIDES, overrides)
        self.facts = {
            "status": RUNNING,
            "error": None,
            "seed": self.config.seed,
            "config_key": config_key(self.config),
            "versions": versions(self.config),
            "git_commit": git_commit(),
            **identity,
            **paused,
        }
        self.write()

    def write(self, **facts: Any) -> None:
        """Add facts to run.json, which is whole at any time."""
        self.facts |= facts
        write_json(self.path / RECORD, self.facts)

    def fail(self, error: BaseException) -> None:
        """Record why the run ended; what can't be recorded doesn't hide the error itself."""
        text = str(error) if isinstance(error, LabError) else f"{type(error).__name__}: {error}"
        if not self.begun and self.state is State.REPLACED:
            return  # the other run is still whole
        try:
            if not self.begun and self.state is State.NEW:
                self._record(overrides=None)
            self.write(status=FAILED, error=" ".join(text.split()))
        except LabError:
            return  # the disk is full or the folder gone: that is the error that is being told

    def pause(self, step: int, total_steps: int) -> None:
        """Record that the run has paused; its last.ckpt is of this step or a later one.

        Args:
            step: Where runs of its length pause.
            total_steps: Optimizer steps of the whole run.
        """
        self.write(status=PAUSED, paused_at=step, total_steps=total_steps)
        self.state = State.PAUSED
        log.info("%s pauses at step %d of %d: study.pause", self.path, step, total_steps)

    def end_early(self, step: int, reason: str) -> None:
        """Record that the paused run goes no further; the same run without early_end does.

        Args:
            step: Where it was judged.
            reason: Why, in a few words.

        Raises:
            Locked: Another process trains in the folder.
            LabError: The folder isn't writable.
        """
        told = {"step": step, "reason": reason}
        if self.facts.get("status") == ENDED_EARLY and self.facts.get("ended_early") == told:
            return
        with hold(self.path / LOCK, "wait until it ends"):
            self.write(status=ENDED_EARLY, error=None, ended_early=told)

    def complete(self, **facts: Any) -> None:
        """Record what the run cost and that it is whole; the checkpoint has served its purpose."""
        if not self.config.callbacks.keep_last_checkpoint:
            (self.path / CHECKPOINT).unlink(missing_ok=True)
        flush_tables(self.path)
        lora = {"lora_bytes": self.lora.stat().st_size, "lora_sha256": sha256_file(self.lora)}
        self.write(status=COMPLETE, **lora, epochs=self.config.epochs, **facts)
        self.state = State.COMPLETE
        log.info("LoRA: %s", self.lora)


def _pause_of(facts: dict[str, Any]) -> dict[str, Any]:
    """What a run that goes on keeps of its pause."""
    return {name: facts[name] for name in ("paused_at", "total_steps") if name in facts}


def flush_tables(path: Path) -> None:
    """Have the rows of a run's tables written to disk now, so that no power cut takes them back.

    Raises:
        LabError: The disk is full.
    """
    for table in (path / name for name in TABLES):
        try:
            if table.is_file():
                flush(table)
        except OSError as error:
            raise write_error(table, error) from error


def _has_saved(path: Path) -> bool:
    """Whether a run has left what took time to make: LoRA files, a checkpoint, rows of figures."""
    if (path / CHECKPOINT).is_file() or any((path / LORAS).glob("*.safetensors")):
        return True
    try:
        with open_regular(path / "metrics.csv") as file:
            return len(list(zip(range(2), file, strict=False))) > 1
    except OSError:
        return False


def _other_settings(path: Path, config: TrainConfig, facts: dict[str, Any]) -> str | None:
    """How the settings of a folder's run differ, as ``network.dim: 4 → 8``; None if they don't."""
    if facts.get("config_key") == config_key(config):
        return None
    old, new = influential(read_settings(path)), influential(dataclasses.asdict(config))
    changes = [
        f"{key}: {_word(old, key)} → {_word(new, key)}"
        for key in dict.fromkeys([*new, *old])
        if old and _word(old, key) != _word(new, key)
    ]
    return f"holds a run with other settings ({'; '.join(changes) or 'unknown ones'})"


def _word(values: dict[str, Any], key: str) -> str:
    if key not in values:
        return "nothing"
    return "null" if values[key] is None else clipped(values[key])


def _other_inputs(
    config: TrainConfig, facts: dict[str, Any], fingerprints: dict[str, str]
) -> str | None:
    """Why a run of the same settings would not give the same bytes now; None if it would."""
    if facts.get("reuse_key") in (None, reuse_key(config, fingerprints)):
        return None
    changes = _changes(facts.get("fingerprints"), fingerprints, length=10)
    changes += _changes(facts.get("versions"), versions(config), length=None)
    changes += _changes(facts, {"hardware": hardware(config)}, length=None)
    if facts.get("code") not in (None, code_version()):
        changes.append("LoRA Lab's own code")
    return f"holds a run with other inputs ({'; '.join(changes) or 'of unknown kind'})"


def _changes(old: Any, new: dict[str, str], length: int | None) -> list[str]:
    if not isinstance(old, dict):
        return []
    return [
        f"{name}: {str(old[name])[:length]} → {new[name][:length]}"
        for name in new
        if name in old and old[name] != new[name]
    ]
