"""The base that a run's LoRA was trained on, to draw with where the settings name no other."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_lab.config import MergeConfig, SamplingConfig
from lora_lab.errors import LabError
from lora_lab.run_folder.record import CONFIG, read_settings
from lora_lab.run_folder.saved_loras import find_rows


def with_trained_base(config: SamplingConfig, folder: Path) -> SamplingConfig:
    """Draw a run's or sweep's LoRAs as they were trained, and as a sweep draws them at its end.

    Args:
        config: What it names itself stays: checkpoints, ``prediction_type``, ``merge``.
        folder: Of a run or a sweep, whose base run tells.

    Raises:
        LabError: The folder is neither, or its config.yaml can't say what was merged.
    """
    runs = find_rows(folder).runs
    run = next((run for run in runs if run.is_base), runs[0])
    return with_base_of(config, run.folder)


def with_base_of(config: SamplingConfig, run_dir: Path) -> SamplingConfig:
    """The same from one run folder; one without a readable config.yaml tells nothing.

    Raises:
        LabError: Its config.yaml can't say what was merged.
    """
    model = read_settings(run_dir).get("model")
    if not isinstance(model, Mapping):
        return config
    checkpoint, predicted = model.get("checkpoint"), model.get("prediction_type")
    return replace(
        config,
        checkpoints=config.checkpoints or ([str(checkpoint)] if checkpoint else []),
        prediction_type=predicted if config.prediction_type is None else config.prediction_type,
        merge=_merged(model, run_dir) if config.merge is None else config.merge,
    )


def _merged(model: Mapping[str, Any], run_dir: Path) -> list[MergeConfig]:
    try:
        rows = model.get("merge") or []
        return [MergeConfig(str(row["file"]), float(row["weight"])) for row in rows]
    except (TypeError, KeyError, ValueError) as error:
        raise LabError(
            f"{run_dir / CONFIG}: model.merge must be a list of file and weight, got "
            f"{model.get('merge')!r}; set sampling.merge, [] for none"
        ) from error
