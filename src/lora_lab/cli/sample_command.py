"""`sample.py`: the grids of a run or sweep folder, and images from any LoRA file."""

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from lora_lab.assets import locate
from lora_lab.base_model import BaseModel, load_base
from lora_lab.config import SampleConfig, SamplingConfig
from lora_lab.errors import LabError
from lora_lab.files import atomic_path, write_json
from lora_lab.merge import LoRAMerger
from lora_lab.run import COMPLETE, read_facts
from lora_lab.sampling.compose import compose_grid
from lora_lab.sampling.generate import ImageRequest, check_settings
from lora_lab.sampling.names import PromptNames
from lora_lab.sampling.picture import draw_grid
from lora_lab.sampling.run_images import (
    KINDS,
    SUBJECT,
    Outcome,
    PlannedImage,
    draw_lora,
    draw_settings,
    image_path,
    plan_images,
    prompt_text,
    safe_name,
    with_subject,
)
from lora_lab.sampling.saved_loras import Rows, RunLoRAs, find_rows

log = logging.getLogger(__name__)

RunImages = dict[tuple[str, int, int], Outcome]
"""(kind, index of the prompt, step) -> image."""


def sample_command(config: SampleConfig) -> None:
    """Draw what the config asks for and print where it is.

    Raises:
        LabError: Nothing could be drawn, or not all of it; says what.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.run is not None:
        paths = draw_grids(Path(config.run).expanduser(), config.sampling)
    else:
        paths = draw_from_file(config)
    for path in paths:
        sys.stdout.write(f"{path}\n")
    sys.stdout.flush()


def draw_grids(folder: Path, config: SamplingConfig) -> list[Path]:
    """Draw the images of every saved LoRA and the grids that show them.

    Images that are there with the same recipe stay. What can't be drawn is said in its cell.

    Args:
        folder: A run folder or a sweep folder.
        config: Prompts, seeds, sampler and checkpoints.

    Returns:
        The grids: of a run in its grids/, of a sweep in its report/.

    Raises:
        LabError: The folder holds no runs, or a checkpoint can't be read or drawn with; the grids
            of the other checkpoints are there all the same.
    """
    rows = find_rows(folder)
    if not config.checkpoints:
        raise LabError("sampling.checkpoints is empty: name the checkpoint that draws the images")
    for checkpoint in config.checkpoints:
        locate(checkpoint)
    config = with_subject(config, [save.path for run in rows.runs for save in run.saves])
    grids: list[Path] = []
    problems: list[str] = []
    names: set[str] = set()
    for checkpoint in config.checkpoints:
        try:
            base = _load(checkpoint, config)
            check_settings(base, draw_settings(config))
        except LabError as error:
            problems.append(str(error))
            continue
        name = _unused(safe_name(base.name), names)
        grids += _draw_checkpoint(folder, rows, base, name, config)
    if problems:
        raise LabError("; ".join(problems))
    return grids


def _load(checkpoint: str, config: SamplingConfig) -> BaseModel:
    """A checkpoint that draws."""
    return load_base(
        checkpoint, allow_pickle=config.allow_pickle, prediction_type=config.prediction_type
    )


def _unused(name: str, names: set[str]) -> str:
    """A name that no other checkpoint has; the set learns it."""
    number, unused = 1, name
    while unused in names:
        number += 1
        unused = f"{name}-{number}"
    names.add(unused)
    return unused


def _draw_checkpoint(
    folder: Path, rows: Rows, base: BaseModel, name: str, config: SamplingConfig
) -> list[Path]:
    """Images and grids of all runs on one checkpoint."""
    merger = LoRAMerger(base)
    images = {run.folder: draw_run(run, merger, base, name, config) for run in rows.runs}
    for run in rows.runs:
        alone = Rows("", (replace(run, note="", is_base=False),))
        _write_grids(run.folder / "grids", alone, images, base, name, config)
    if rows.parameter:
        return _write_grids(folder / "report", rows, images, base, name, config)
    return [run.folder / "grids" / _grid_name(name, kind) for run in rows.runs for kind in KINDS]


def draw_run(
    run: RunLoRAs, merger: LoRAMerger, base: BaseModel, name: str, config: SamplingConfig
) -> RunImages:
    """Draw all images of a run on one checkpoint, and add their time to its run.json.

    Args:
        run: The run and its LoRA files.
        merger: Of the base.
        base: The checkpoint that draws.
        name: The checkpoint's folder inside images/.
        config: How to draw.
    """
    images: RunImages = {}
    began, count = time.perf_counter(), 0
    for save in run.saves:
        final = save is run.saves[-1] and not run.problem
        planned = plan_images(config, final)
        files = {image_path(run.folder / "images", name, item, save.step): item for item in planned}
        requests = {path: item.request for path, item in files.items() if not item.problem}
        outcomes, drawn = draw_lora(merger, base, save.path, requests, config)
        outcomes |= {
            path: Outcome(None, item.problem) for path, item in files.items() if item.problem
        }
        images.update(_by_place(files, outcomes, save.step))
        count += len(requests) if drawn else 0
    if count:
        seconds = time.perf_counter() - began
        log.info("%s on %s: %d images in %.0f s", run.folder.name, name, count, seconds)
        _add_seconds(run.folder, seconds)
    return images


def _by_place(
    files: dict[Path, PlannedImage], outcomes: dict[Path, Outcome], step: int
) -> RunImages:
    return {(item.kind, item.index, step): outcomes[path] for path, item in files.items()}


def _add_seconds(folder: Path, seconds: float) -> None:
    """Add to the sampling time in run.json."""
    facts = read_facts(folder)
    if facts is None or facts.get("status") != COMPLETE or not isinstance(facts["seconds"], dict):
        return
    before = facts["seconds"].get("sampling") or 0.0
    facts["seconds"]["sampling"] = round(before + seconds, 4)
    write_json(folder / "run.json", facts)


def _grid_name(name: str, kind: str) -> str:
    return f"grid_{name}_{kind}.png"


def _write_grids(
    folder: Path,
    rows: Rows,
    images: dict[Path, RunImages],
    base: BaseModel,
    name: str,
    config: SamplingConfig,
) -> list[Path]:
    paths = []
    for kind in KINDS:
        path = folder / _grid_name(name, kind)
        picture = draw_grid(compose_grid(rows, images, kind, base, config))
        with atomic_path(path) as temporary:
            picture.save(temporary, format="PNG")
        paths.append(path)
    return paths


def draw_from_file(config: SampleConfig) -> list[Path]:
    """Draw images from one LoRA file, ours or not.

    Returns:
        `<output>/<checkpoint>/<LoRA>-<seed>.png`, for each checkpoint and seed.

    Raises:
        LabError: LoRA or checkpoint can't be read or don't fit, or an image came out as NaN.
    """
    assert config.lora is not None
    lora = Path(config.lora).expanduser()
    text = config.prompt or config.sampling.prompts.simple
    sampling = config.sampling
    if SUBJECT in text:
        sampling = with_subject(sampling, [lora])
    prompt = prompt_text(text, sampling, "prompt", 0, PromptNames(sampling))
    paths: list[Path] = []
    names: set[str] = set()
    for checkpoint in sampling.checkpoints:
        base = _load(checkpoint, sampling)
        check_settings(base, draw_settings(sampling))
        folder = Path(config.output).expanduser() / _unused(safe_name(base.name), names)
        files = {
            folder / f"{lora.stem}-{seed}.png": ImageRequest(prompt, sampling.negative, seed)
            for seed in range(sampling.seed, sampling.seed + config.count)
        }
        outcomes, _ = draw_lora(LoRAMerger(base), base, lora, files, sampling)
        paths += _whole(outcomes)
    return paths


def _whole(outcomes: dict[Path, Outcome]) -> Sequence[Path]:
    """The images' paths.

    Raises:
        LabError: One is missing.
    """
    for path, outcome in outcomes.items():
        if outcome.path is None:
            raise LabError(f"{path.name} was not drawn: {outcome.problem}")
    return list(outcomes)
