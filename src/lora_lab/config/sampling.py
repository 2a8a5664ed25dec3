"""How images are drawn: settings and their ranges."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lora_lab.config.model import MERGE_RULE, PREDICTION_TYPES, MergeConfig
from lora_lab.config.rules import (
    LONGEST_PROMPT,
    Rule,
    at_least,
    between,
    one_of,
    or_null,
    prompt,
    text,
)
from lora_lab.config.sampler import SAMPLERS

AXES = {
    "value": "",
    "step": "saved after",
    "lora_weight": "LoRA weight",
    "prompt": "prompt",
    "seed": "seed",
    "sampler": "sampler",
    "guidance": "guidance",
    "checkpoint": "checkpoint",
}
"""Axis of a grid -> what stands in the grid's corner; that of a value is the parameter under study.

To make another setting of an image an axis (a field of DrawSettings in sampling/generate.py), give
it an entry here, a field and a rule in AxesConfig, and its values in conf/sampling/.
"""
PROMPT_NAMES = ("simple", "complex", "random")
FORMATS = ("png", "webp")
_GRID_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_MAX_IMAGE_SEED = 2**32 - 1


@dataclass
class PromptsConfig:
    """Prompts in A1111's syntax; {subject} stands for the trained subject."""

    simple: str
    """The simple prompt, drawn at the fixed seed."""
    complex: str
    """The complex prompt, drawn at the fixed seed."""
    complex_for: dict[str, str]
    """Another complex prompt for some checkpoints: the checkpoint's name and the prompt."""
    random: list[str]
    """The random prompts, drawn at the random seeds."""


@dataclass
class GridConfig:
    """One grid: what differs along its sides."""

    name: str
    """Its name in grid_<checkpoint>_<name>.png; letters, digits, - and _."""
    rows: str
    """Axis: value, step, lora_weight, prompt, seed, sampler, guidance or checkpoint."""
    columns: str
    """Another axis."""
    pages: str | None
    """A third axis, a picture for each of its places; or null."""
    prompts: list[str]
    """simple, complex, random (all of them) or texts; more than one only with the axis prompt."""


@dataclass
class AxesConfig:
    """The places on those axes of a grid that no run, prompt or checkpoint tells."""

    lora_weight: list[float]
    """Weights at which the LoRA is applied; finite numbers."""
    seed: list[int]
    """Seeds; 0 to 2^32 - 1."""
    sampler: list[str]
    """Samplers by A1111's names."""
    guidance: list[float]
    """Guidance scales; >= 1."""


@dataclass
class PictureConfig:
    """How a grid is drawn."""

    max_width: int
    """The widest that a picture may be, in pixels; columns beyond go to another page; >= 720."""
    max_height: int
    """The highest that a picture may be, in pixels; rows beyond go to another page; >= 720."""
    cell: int | None
    """Longer side of an image in a grid, in pixels; 32 to 4096; null: what suits the columns."""
    formats: list[str]
    """png, or png and webp."""


@dataclass
class SamplingConfig:
    """How images are drawn from a LoRA."""

    checkpoints: list[str]
    """Checkpoints that draw: files, folders, embedded:<name>; empty: the one trained on."""
    prompts: PromptsConfig
    """Prompts in A1111's syntax; {subject} stands for the trained subject."""
    subject: str | None
    """Words put in place of {subject}; null: "<trigger> <class>" of the LoRA's data folder."""
    negative: str
    """Negative prompt; may be empty."""
    lora_dir: str | None
    """Folder with the files that <lora:name> in a prompt names; null: prompts can name none."""
    wildcards_dir: str | None
    """Folder with the .txt files that __name__ in a prompt names; null: prompts can name none."""
    embeddings: list[str]
    """Textual inversions that prompts can name: .safetensors files, or folders of them."""
    seed: int
    """The fixed seed of the simple and the complex prompt; 0 to 2^32 - 1."""
    random_seeds: list[int]
    """One seed for each random prompt; 0 to 2^32 - 1."""
    sampler: str
    """Sampler by A1111's name, such as Euler a; another name is answered with the list of all."""
    steps: int
    """Sampling steps; 1 to 1000."""
    guidance: float
    """Classifier-free guidance scale (CFG); >= 1, 1 is off."""
    width: int
    """Width of the images in pixels; 8 to 4096, a multiple of 8."""
    height: int
    """Height of the images in pixels; 8 to 4096, a multiple of 8."""
    batch_size: int
    """Images of a batch, at most; on a GPU part of what makes images repeat exactly; 1 to 1000."""
    loras_at_once: int
    """LoRAs whose images share batches; each takes memory for the weights it changes; 1 to 1000."""
    lora_weight: float
    """Weight at which the LoRA is applied; 1 is as trained."""
    clip_skip: int
    """Which hidden state of the text encoder is used, counted from its end; >= 1, 1 is the last."""
    device: str
    """Where images are drawn: auto (a GPU if there is one), cpu, cuda or mps."""
    grids: list[GridConfig]
    """The grids; the default are the guide's three."""
    train_seeds: int | None
    """Of how many of a sweep's training seeds the grids show the LoRAs; >= 1; null: of all."""
    axes: AxesConfig
    """The places on axes that no run, prompt or checkpoint tells."""
    picture: PictureConfig
    """How a grid is drawn."""
    allow_pickle: bool
    """Also read pickle checkpoints (.ckpt, .pt, .bin), with weights_only=True; true or false."""
    prediction_type: str | None
    """epsilon or v_prediction; null: with run= or png= as trained, else as each checkpoint says."""
    merge: list[MergeConfig] | None
    """LoRAs merged into the checkpoints that draw; null: with run= or png= the run's, else none."""


def _each(test: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda values: bool(values) and all(test(value) for value in values)


_AXIS_RULES = (
    Rule("axes.lora_weight", "a list of finite numbers, one or more", _each(math.isfinite)),
    Rule(
        "axes.seed",
        f"a list of numbers from 0 to {_MAX_IMAGE_SEED}, one or more",
        _each(lambda seed: 0 <= seed <= _MAX_IMAGE_SEED),
    ),
    Rule(
        "axes.sampler",
        f"a list of some of {', '.join(SAMPLERS)}",
        _each(lambda name: name in SAMPLERS),
    ),
    Rule(
        "axes.guidance",
        "a list of numbers >= 1, one or more",
        _each(lambda scale: math.isfinite(scale) and scale >= 1),
    ),
)


def _side(key: str) -> Rule:
    """A side of an image: the VAE makes 8 pixels of a latent."""
    return Rule(key, "from 8 to 4096 and a multiple of 8", lambda v: 8 <= v <= 4096 and v % 8 == 0)


_PICTURE_RULES = (
    between("picture.max_width", 720, 16_383),  # WebP ends there
    between("picture.max_height", 720, 16_383),
    or_null(between("picture.cell", 32, 4096)),
    Rule(
        "picture.formats",
        "[png], [png,webp] or [webp,png]",
        lambda formats: "png" in formats and all(name in FORMATS for name in formats),
    ),
)
RULES = (
    or_null(one_of("prediction_type", PREDICTION_TYPES)),
    or_null(MERGE_RULE),
    Rule("checkpoints", "a list of texts that are not empty", all),
    prompt("prompts.simple"),
    prompt("prompts.complex"),
    Rule(
        "prompts.random",
        f"a list of texts of 1 to {LONGEST_PROMPT} characters",
        lambda value: all(0 < len(text) <= LONGEST_PROMPT for text in value),
    ),
    or_null(text("subject")),
    or_null(text("lora_dir")),
    or_null(text("wildcards_dir")),
    Rule("embeddings", "a list of files or folders", all),
    between("seed", 0, _MAX_IMAGE_SEED),
    Rule(
        "random_seeds",
        f"a list of numbers from 0 to {_MAX_IMAGE_SEED}",
        lambda value: all(0 <= seed <= _MAX_IMAGE_SEED for seed in value),
    ),
    one_of("sampler", tuple(SAMPLERS)),
    between("steps", 1, 1000),
    at_least("guidance", 1),
    _side("width"),
    _side("height"),
    between("batch_size", 1, 1000),
    between("loras_at_once", 1, 1000),
    Rule("lora_weight", "a finite number", math.isfinite),
    at_least("clip_skip", 1),
    one_of("device", ("auto", "cpu", "cuda", "mps")),
    or_null(at_least("train_seeds", 1)),
    *_AXIS_RULES,
    *_PICTURE_RULES,
)


def problems(sampling: SamplingConfig) -> list[str]:
    """Return one line for each pair of settings that don't go together."""
    found = []
    prompts, seeds = len(sampling.prompts.random), len(sampling.random_seeds)
    if prompts != seeds:
        found.append(
            f"sampling.random_seeds must hold one seed for each of the {prompts} random prompts, "
            f"got {seeds}"
        )
    names = [grid.name for grid in sampling.grids]
    for index, grid in enumerate(sampling.grids):
        key = f"sampling.grids[{index}]"
        found += [f"{key}.{line}" for line in grid_problems(grid)]
        if set(grid.prompts) == {"random"} and not prompts:
            found.append(
                f"{key}.prompts must name a prompt, got random, but sampling.prompts.random is "
                "empty: add prompts there or leave the grid out of sampling.grids"
            )
        if names.index(grid.name) != index:
            found.append(f"{key}.name must be another for each grid, got {grid.name!r} twice")
    return found


def grid_problems(grid: GridConfig) -> list[str]:
    """Return one line for each setting of a grid that is out of range, its key first."""
    found = []
    if not _GRID_NAME.fullmatch(grid.name):
        found.append(f"name must be letters, digits, - and _, got {grid.name!r}")
    axes = {"rows": grid.rows, "columns": grid.columns, "pages": grid.pages}
    taken: list[str] = []
    for side, axis in axes.items():
        if axis is None:
            continue
        if axis not in AXES:
            found.append(f"{side} must be one of {', '.join(AXES)}, got {axis!r}")
        if axis in taken:
            found.append(f"{side} must differ from the other sides, got {axis!r} twice")
        taken.append(axis)
    if not grid.prompts or not all(text.strip() for text in grid.prompts):
        found.append("prompts must be a list of texts that are not empty, one or more")
    if "prompt" not in taken and (len(grid.prompts) > 1 or "random" in grid.prompts):
        found.append(
            f"prompts must be one prompt unless an axis is prompt, got {', '.join(grid.prompts)}"
        )
    return found
