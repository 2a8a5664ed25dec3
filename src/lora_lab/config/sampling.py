"""How images are drawn: settings and their ranges."""

import math
from dataclasses import dataclass

from lora_lab.config.model import PREDICTION_TYPES
from lora_lab.config.rules import Rule, at_least, between, one_of, or_null, text

SAMPLERS = ("Euler a", "Euler", "DDIM", "DPM++ 2M Karras", "DPM++ SDE Karras", "UniPC")
_MAX_IMAGE_SEED = 2**32 - 1


@dataclass
class PromptsConfig:
    """Prompts in A1111's syntax; {subject} stands for the trained subject."""

    simple: str
    """The simple prompt, drawn at the fixed seed."""
    complex: str
    """The complex prompt, drawn at the fixed seed."""
    random: list[str]
    """The random prompts, drawn at the random seeds."""


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
    """Sampler by A1111's name: Euler a, Euler, DDIM, DPM++ 2M Karras, DPM++ SDE Karras, UniPC."""
    steps: int
    """Sampling steps; >= 1."""
    guidance: float
    """Classifier-free guidance scale (CFG); >= 1, 1 is off."""
    width: int
    """Width of the images in pixels; >= 8, a multiple of 8."""
    height: int
    """Height of the images in pixels; >= 8, a multiple of 8."""
    batch_size: int
    """Images drawn at once; part of what makes images repeat exactly; >= 1."""
    lora_weight: float
    """Weight at which the LoRA is applied; 1 is as trained."""
    clip_skip: int
    """Which hidden state of the text encoder is used, counted from its end; >= 1, 1 is the last."""
    allow_pickle: bool
    """Also read pickle checkpoints (.ckpt, .pt, .bin), with weights_only=True; true or false."""
    prediction_type: str | None
    """What their UNets predict: epsilon or v_prediction; null: what each checkpoint says."""


RULES = (
    or_null(one_of("prediction_type", PREDICTION_TYPES)),
    Rule("checkpoints", "a list of texts that are not empty", all),
    text("prompts.simple"),
    text("prompts.complex"),
    Rule("prompts.random", "a list of texts that are not empty", all),
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
    one_of("sampler", SAMPLERS),
    at_least("steps", 1),
    at_least("guidance", 1),
    Rule("width", ">= 8 and a multiple of 8", lambda value: value >= 8 and value % 8 == 0),
    Rule("height", ">= 8 and a multiple of 8", lambda value: value >= 8 and value % 8 == 0),
    at_least("batch_size", 1),
    Rule("lora_weight", "a finite number", math.isfinite),
    at_least("clip_skip", 1),
)


def problems(sampling: SamplingConfig) -> list[str]:
    """Returns one line for each pair of settings that don't go together."""
    prompts, seeds = len(sampling.prompts.random), len(sampling.random_seeds)
    if prompts == seeds:
        return []
    return [
        f"sampling.random_seeds must hold one seed for each of the {prompts} random prompts, "
        f"got {seeds}"
    ]
