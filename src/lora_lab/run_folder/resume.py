"""Whether a run may go on in a folder: the same settings, inputs, code and libraries, or refused.

Nothing that another run left is replaced unless ``overwrite=true`` asks for it.
"""

import dataclasses
import logging
import shutil
from pathlib import Path
from typing import Any

import yaml

from lora_lab.config import TrainConfig
from lora_lab.errors import ConfigError
from lora_lab.files import write_error
from lora_lab.run_folder.record import COMPLETE, config_key, influential, reuse_key, versions

log = logging.getLogger(__name__)

CHECKPOINT = "last.ckpt"
OVERWRITTEN = (
    *(CHECKPOINT, "metrics.csv", "held_out.csv", "images", "grids", "tensorboard", "wandb"),
)
"""What an earlier run leaves in its folder beside its LoRA files."""
NEXT_STEP = "choose another hydra.run.dir or hydra.sweep.dir, or replace it with overwrite=true"


class Refused(ConfigError):
    """The folder holds another run, which stays as it is."""


def changed_settings(run_dir: Path, config: TrainConfig) -> list[str]:
    """The settings of a folder's run that differ from these, as ``network.dim: 4 → 8``.

    Settings that can't change a LoRA don't count. A config.yaml that can't be read gives none.

    Args:
        run_dir: The run folder.
        config: What would be trained.
    """
    try:
        text = (run_dir / "config.yaml").read_text(encoding="utf-8")
        earlier = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return []
    old = influential(earlier) if isinstance(earlier, dict) else {}
    new = influential(dataclasses.asdict(config))
    return [
        f"{key}: {_word(old, key)} → {_word(new, key)}"
        for key in dict.fromkeys([*new, *old])
        if _word(old, key) != _word(new, key)
    ]


def _word(values: dict[str, Any], key: str) -> str:
    if key not in values:
        return "nothing"
    return "null" if values[key] is None else str(values[key])


def other_settings(
    run_dir: Path, config: TrainConfig, earlier: dict[str, Any] | None
) -> str | None:
    """Why the folder's run has other settings; None when it has the same or there is none."""
    if earlier is None or earlier.get("config_key") == config_key(config):
        return None
    changes = changed_settings(run_dir, config)
    return f"holds a run with other settings ({'; '.join(changes) or 'unknown ones'})"


def other_inputs(
    config: TrainConfig, earlier: dict[str, Any] | None, fingerprints: dict[str, str], code: str
) -> str | None:
    """Why the folder's run, of the same settings, would not give the same bytes now.

    Args:
        config: What would be trained.
        earlier: What the folder's run.json said.
        fingerprints: Of what would be read.
        code: The version of the code now.

    Returns:
        The differences by name; None when there is none.
    """
    if earlier is None or earlier.get("reuse_key") in (None, reuse_key(config, fingerprints)):
        return None
    changes = _differences(earlier.get("fingerprints"), fingerprints, short=True)
    changes += _differences(earlier.get("versions"), versions(), short=False)
    if earlier.get("code") not in (None, code):
        changes.append("LoRA Lab's own code")
    return f"holds a run with other inputs ({'; '.join(changes) or 'of unknown kind'})"


def _differences(old: Any, new: dict[str, str], short: bool) -> list[str]:
    if not isinstance(old, dict):
        return []
    length = 10 if short else None
    return [
        f"{name}: {str(old[name])[:length]} → {new[name][:length]}"
        for name in new
        if name in old and old[name] != new[name]
    ]


def checkpoint_of(
    config: TrainConfig, run_dir: Path, earlier: dict[str, Any] | None, difference: str | None
) -> Path | None:
    """The checkpoint to go on from; None when the run begins at its first step.

    Args:
        config: What is trained.
        run_dir: The run folder.
        earlier: What its run.json said; None when it held no run.
        difference: How the folder's run differs; None when it is the same run.

    Raises:
        Refused: Something of value would be replaced.
        LabError: Old files can't be removed.
    """
    checkpoint = run_dir / CHECKPOINT
    if difference is None and earlier is not None and earlier.get("status") == COMPLETE:
        difference = "holds this run, which is complete"
    left = checkpoint.is_file() or any((run_dir / "lora").glob("*.safetensors"))
    if not left:
        return None
    if config.overwrite:
        log.warning("%s: what another run left is replaced, as overwrite=true asks", run_dir)
    elif difference is not None:
        raise Refused(f"{run_dir} {difference}; {NEXT_STEP}")
    elif not config.resume:
        raise Refused(f"{run_dir} holds an interrupted run; go on with resume=true, or {NEXT_STEP}")
    elif checkpoint.is_file():
        log.info("going on with the interrupted run in %s", run_dir)
        return checkpoint
    _clear(run_dir, everything=config.overwrite)
    return None


def _clear(run_dir: Path, everything: bool) -> None:
    """Remove the LoRA files of a run, or all that it left."""
    try:
        for path in (run_dir / "lora").glob("*.safetensors"):
            path.unlink()
        for name in OVERWRITTEN if everything else ():
            path = run_dir / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise write_error(run_dir, error) from error
