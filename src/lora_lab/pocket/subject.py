"""Whether a LoRA of the default config learns the person, and what the prompt still decides.

The default config is trained once on the person. Prompts that name clothes, glasses, mouth and
background draw the person with the LoRA and, with the same noise, whomever the bare base draws.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.lora_file.file import read_lora
from lora_lab.lora_file.merge import LoRAMerger
from lora_lab.pocket.attributes import Attributes, draw_attributes, phrases, with_changes
from lora_lab.pocket.evaluate import generate
from lora_lab.pocket.person import TRIGGER, draw_person
from lora_lab.study.check import settings

IDENTITY = ("hair", "hair_color", "skin", "scar", "print")
"""What is the person's own."""
PROMPTED = ("garment", "garment_color", "glasses", "background")
"""What the prompt decides."""

Read = Callable[[np.ndarray], list[dict[str, object]]]
"""What each image shows."""


def subject_prompts(count: int, seed: int) -> tuple[list[str], list[Attributes]]:
    """Prompts of the person, and the portraits they describe; every second one has glasses."""
    rng = random.Random(f"subject prompts/{seed}")
    prompts, wanted = [], []
    for i in range(count):
        other = draw_attributes(rng)
        glasses = rng.choice(["round glasses", "black glasses"]) if i % 2 else "no glasses"
        a = with_changes(draw_person(rng), glasses=glasses, mouth=other.mouth, framing="portrait")
        words = phrases(a, rng)
        named = [words[name] for name in ("garment", "glasses", "mouth", "background")]
        rng.shuffle(named)
        prompts.append(", ".join([f"portrait of a {TRIGGER} person", *named]))
        wanted.append(a)
    return prompts, wanted


def shares(found: Sequence[dict[str, object]], wanted: Sequence[Attributes]) -> dict[str, float]:
    """Share of images that show each part of the identity, all of it, and what was prompted."""
    same = [
        {name: seen[name] == getattr(a, name) for name in (*IDENTITY, *PROMPTED)}
        for seen, a in zip(found, wanted, strict=True)
    ]
    for seen, a, hits in zip(found, wanted, same, strict=True):
        hits["glasses"] = (seen["glasses"] == "no glasses") == (a.glasses == "no glasses")
    parts = {name: [hits[name] for hits in same] for name in same[0]}
    parts["identity"] = [all(hits[name] for name in IDENTITY) for hits in same]
    return {name: float(np.mean(values)) for name, values in parts.items()}


def train_subject(checkpoint: Path, person: Path, folder: Path) -> Path:
    """Train the default config on the person, unless that very run is in ``folder``.

    Returns:
        the LoRA file.
    """
    from lora_lab.train import train

    config = settings([f"model.checkpoint={checkpoint}", f"data.dir={person}", "overwrite=true"])
    return train(config, folder).lora


def measure_subject(
    base: BaseModel, lora: Path, read: Read, count: int, seed: int
) -> tuple[dict[str, dict[str, float]], np.ndarray]:
    """Draw ``count`` prompts with the LoRA and with the bare base, and read both.

    Returns:
        ``with_lora`` and ``bare`` -> what ``shares`` says; the images with the LoRA.
    """
    prompts, wanted = subject_prompts(count, seed)
    bare = generate(base, prompts)
    merger = LoRAMerger(base)
    tensors, _ = read_lora(lora)
    merger.apply([(tensors, 1.0)])
    try:
        drawn = generate(base, prompts)
    finally:
        merger.restore()
    figures = {"with_lora": shares(read(drawn), wanted), "bare": shares(read(bare), wanted)}
    return figures, drawn
