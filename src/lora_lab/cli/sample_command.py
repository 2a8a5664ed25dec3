"""`sample.py`: the grids of a run or sweep folder, images from any LoRA file, an image again."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from lora_lab.config import SampleConfig, SamplingConfig
from lora_lab.config.sampling import GridConfig
from lora_lab.errors import LabError
from lora_lab.files import read_yaml
from lora_lab.run_folder.locks import GRIDS_LOCK, wait_for
from lora_lab.run_folder.saved_loras import Rows, file_rows, find_rows, first_seeds
from lora_lab.sampling.from_file import draw_from_file
from lora_lab.sampling.grids.gallery import Curator, Gallery, draw_gallery, read_scores
from lora_lab.sampling.replay import replay

DEFAULT_THREADS = 2
PROBLEMS_SHOWN = 5


def sample_command(config: SampleConfig) -> None:
    """Draw what the config asks for and print where it is.

    Raises:
        LabError: Nothing could be drawn, or not all of it; says what.
    """
    if config.png is not None:
        paths: list[Path] = [_draw_again(config)]
        problems: list[str] = []
    else:
        threads = config.threads
        if threads is None:
            threads = run_threads(Path(config.run)) if config.run else DEFAULT_THREADS
        if threads:
            torch.set_num_threads(threads)
        paths, problems = _draw(config)
    for path in paths:
        sys.stdout.write(f"{path}\n")
    sys.stdout.flush()
    refuse(problems)


def refuse(problems: Sequence[str]) -> None:
    """End with what could not be drawn.

    Raises:
        LabError: There is a problem.
    """
    if not problems:
        return
    more = f"; and {len(problems) - PROBLEMS_SHOWN} more" if len(problems) > PROBLEMS_SHOWN else ""
    raise LabError("not all was drawn: " + "; ".join(problems[:PROBLEMS_SHOWN]) + more)


def draw_grids(folder: Path, config: SamplingConfig) -> Gallery:
    """Draw the images of every saved LoRA of a run or sweep folder, and its grids.

    Images and grids that are there already stay. What can't be drawn is said in its cell.

    Raises:
        LabError: Nothing can be drawn: the folder holds no runs, no checkpoint is named, or one is
            missing.
    """
    rows = first_seeds(find_rows(folder), config.train_seeds)
    with wait_for(folder / GRIDS_LOCK, f"the grids of {folder}"):
        return draw_gallery(folder, rows, config)


def _draw(config: SampleConfig) -> tuple[list[Path], list[str]]:
    """What was drawn, and what could not be."""
    if config.run is not None:
        folder = Path(config.run).expanduser()
        scores = read_scores(Path(config.scores).expanduser(), folder) if config.scores else None
        rows = first_seeds(find_rows(folder), config.sampling.train_seeds)
        with wait_for(folder / GRIDS_LOCK, f"the grids of {folder}"):
            gallery = draw_gallery(folder, rows, with_own_grid(config), scores)
        return gallery.grids, gallery.problems
    assert config.lora is not None
    lora, output = Path(config.lora).expanduser(), Path(config.output).expanduser()
    if config.rows is None:
        seeds = range(config.sampling.seed, config.sampling.seed + config.count)
        return draw_from_file(lora, output, config.prompt, seeds, config.sampling)
    rows = file_rows(lora, output)
    curator = Curator(rows, with_own_grid(config))
    curator.draw()
    gallery = curator.gallery(curator.write(rows, rows.runs[0].folder))
    return gallery.grids, gallery.problems


def with_own_grid(config: SampleConfig) -> SamplingConfig:
    """The grid that rows and columns ask for, in place of those of the config."""
    if config.rows is None:
        return config.sampling
    columns = config.columns or ("lora_weight" if config.rows == "seed" else "seed")
    sides = [config.rows, columns, *([config.pages] if config.pages else [])]
    prompts = [config.prompt or ("random" if "prompt" in sides else "simple")]
    grid = GridConfig("-".join(sides), config.rows, columns, config.pages, prompts)
    return replace(config.sampling, grids=[grid])


def _draw_again(config: SampleConfig) -> Path:
    assert config.png is not None
    png = Path(config.png).expanduser()
    lora = Path(config.lora).expanduser() if config.lora is not None else None
    return replay(png, Path(config.output).expanduser(), config.sampling, lora, config.threads)


def run_threads(folder: Path) -> int:
    """CPU threads that the runs of a folder were trained with, and drawn with after a sweep."""
    rows: Rows = find_rows(folder.expanduser())
    for run in rows.runs:
        try:
            return int(read_yaml(run.folder / "config.yaml")["trainer"]["threads"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return DEFAULT_THREADS
