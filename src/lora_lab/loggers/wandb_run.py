"""One run on Weights & Biases; the only file that imports wandb.

No key is read from the config or written: wandb takes it from its own login. Offline, everything
that a later `wandb sync` needs lies inside the run folder.
"""

import logging
import os
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from lora_lab.config import WandbConfig
from lora_lab.errors import LabError
from lora_lab.files import read_json, write_json, write_text

log = logging.getLogger(__name__)

DATA_DIR = "WANDB_DATA_DIR"
"""Where wandb keeps files that an artifact or a table refers to until they are uploaded."""
MAX_ARTIFACT_NAME = 128
SECONDS_TO_ANSWER = 5.0
"""wandb itself tries for minutes, and then gives up the run."""
_OURS: set[str] = set()
"""What this process has set DATA_DIR to."""


@dataclass(frozen=True)
class Job:
    """What a run is shown as."""

    type: str
    """train, sample or report."""
    name: str
    group: str | None
    """The sweep that it belongs to."""
    config: Mapping[str, Any]
    """Plain values, shown beside the run."""

    @property
    def key(self) -> str:
        """What its id is kept under: a folder has one training, and a sample job for each run."""
        return self.type if self.type == "train" else f"{self.type} {self.name}"


@dataclass(frozen=True)
class LoggedImage:
    """An image file with what is written below it."""

    path: Path
    caption: str = ""


class WandbRun:
    """A run that was started.

    Args:
        run: Wandb's own run.
        data_dir: What the environment said of DATA_DIR before.
    """

    def __init__(self, run: Any, data_dir: str | None) -> None:
        self.run = run
        self._data_dir = data_dir

    @property
    def online(self) -> bool:
        """Whether figures are sent while they are logged."""
        return not self.run.offline

    @property
    def first_step(self) -> int:
        """The first step that can be logged; above 0 when an earlier part is online already."""
        return int(self.run.starting_step)

    def log(
        self,
        step: int,
        figures: Mapping[str, float],
        pictures: Mapping[str, LoggedImage] | None = None,
    ) -> None:
        """Log all of a step; calls of one step end in one row of the history."""
        shown = {key: _image(picture) for key, picture in (pictures or {}).items()}
        self.run.log({**figures, **shown}, step=step)

    def log_table(
        self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int
    ) -> None:
        """Log a table; a LoggedImage in a cell becomes an image."""
        import wandb

        cells = [[_image(c) if isinstance(c, LoggedImage) else c for c in row] for row in rows]
        self.run.log({key: wandb.Table(columns=list(columns), data=cells)}, step=step)

    def log_files(
        self,
        kind: str,
        name: str,
        files: Mapping[str, Path],
        aliases: Sequence[str],
        facts: Mapping[str, Any],
    ) -> None:
        """Log files as a version of an artifact; the same bytes again only add aliases.

        Args:
            kind: The artifact's type, such as lora.
            name: Of the artifact.
            files: Name inside the artifact -> file, which must stay as it is until it is uploaded.
            aliases: Names of this version.
            facts: Metadata.
        """
        import wandb

        artifact = wandb.Artifact(artifact_name(name), type=kind, metadata=dict(facts))
        for inside, path in files.items():
            # Not copied: the run folder keeps its LoRA files, and ten copies would double it.
            artifact.add_file(str(path.resolve()), inside, policy="immutable", skip_cache=True)
        self.run.log_artifact(artifact, aliases=[re.sub(r"[/:]", "-", alias) for alias in aliases])

    def summarize(self, figures: Mapping[str, Any]) -> None:
        """Set figures that stand for the whole run."""
        self.run.summary.update(dict(figures))

    def finish(self, ok: bool) -> None:
        """End the run; in a sweep the next one begins in the same process."""
        self.run.finish(exit_code=0 if ok else 1)
        _restore(self._data_dir)


def start(settings: WandbConfig, folder: Path, job: Job, resumed: bool = False) -> WandbRun:
    """Start a run whose files go to `<folder>/wandb/`, under the id that is kept there.

    Args:
        settings: Project and mode.
        folder: A run or sweep folder.
        job: What the run is shown as.
        resumed: Whether the job goes on where it stopped. Else a training gets a new id, and any
            other job replaces what it logged before.

    Raises:
        LabError: Weights & Biases can't be started.
    """
    stored = stored_id(folder, job.key)
    fresh = stored is None or (job.type == "train" and not resumed)
    run_id = secrets.token_hex(4) if fresh else str(stored)
    before = os.environ.get(DATA_DIR)
    if before in _OURS:  # left by a run that was cut off before it could end
        before = None
    earlier = sorted((folder / "wandb").glob(f"offline-run-*-{run_id}/*.wandb"))
    _store_id(folder, job.key, run_id)
    if before is None:
        os.environ[DATA_DIR] = str((folder / "wandb").resolve())
        _OURS.add(os.environ[DATA_DIR])
    try:
        run = _start(settings, folder, job, run_id, resumed)
    except LabError:
        _restore(before)
        raise
    for part in earlier:
        # The run that begins now says all of it again: syncing both would overwrite one another.
        write_text(part.with_name(part.name + ".synced"), "")
    return WandbRun(run, before)


def _start(settings: WandbConfig, folder: Path, job: Job, run_id: str, resumed: bool) -> Any:
    import wandb

    try:
        return wandb.init(
            project=settings.project,
            group=job.group,
            job_type=job.type,
            name=job.name,
            id=run_id,
            resume="allow" if resumed else None,
            dir=folder,
            mode=mode_of(settings),
            config=dict(job.config),
            settings=wandb.Settings(
                console="off", silent=True, save_code=False, x_disable_meta=True
            ),
        )
    except (wandb.errors.Error, OSError) as error:
        raise LabError(
            f"Weights & Biases could not be started ({error}); "
            "run `wandb login` or set logger.wandb.mode=offline"
        ) from error


def _restore(data_dir: str | None) -> None:
    if data_dir is None:
        os.environ.pop(DATA_DIR, None)
    else:
        os.environ[DATA_DIR] = data_dir


def mode_of(settings: WandbConfig) -> Any:
    """``auto`` is online with a login and a server that answers; wandb reads WANDB_MODE itself."""
    import wandb

    if settings.mode != "auto":
        return settings.mode
    if "WANDB_MODE" in os.environ:
        return None
    if not wandb.api.api_key:
        return "offline"
    address = str(wandb.setup().settings.base_url)
    if answers(address):
        return "online"
    log.warning(
        "Weights & Biases: %s does not answer; the run is logged offline, `wandb sync` sends it "
        "later (logger.wandb.mode=online insists)",
        address,
    )
    return "offline"


def answers(address: str) -> bool:
    """Whether a server takes a connection; behind a proxy that can't be told, and is hoped."""
    server = urlsplit(address)
    if server.hostname is None or server.scheme in getproxies():
        return True
    port = server.port or (443 if server.scheme == "https" else 80)
    try:
        socket.create_connection((server.hostname, port), SECONDS_TO_ANSWER).close()
    except OSError:
        return False
    return True


def stored_id(folder: Path, key: str) -> str | None:
    """The id of a folder's job; None when it was never logged."""
    found = _ids(folder).get(key)
    return found if isinstance(found, str) and re.fullmatch(r"[\w-]{1,64}", found) else None


def artifact_name(text: str) -> str:
    """A name as artifacts may have: letters, digits, dot, dash and underscore."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:MAX_ARTIFACT_NAME] or "lora"


def _ids(folder: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        ids = read_json(folder / "wandb" / "ids.json")
        return ids if isinstance(ids, dict) else {}
    return {}


def _store_id(folder: Path, key: str, run_id: str) -> None:
    write_json(folder / "wandb" / "ids.json", {**_ids(folder), key: run_id})


def _image(picture: LoggedImage) -> Any:
    import wandb

    return wandb.Image(str(picture.path), caption=picture.caption or None)
