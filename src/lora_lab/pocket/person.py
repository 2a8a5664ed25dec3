"""Draw the person of ``data=person``: 24 training and 24 held-out pictures with captions.

The identity is constant and new to pocket: hairstyle, hair colour, scar and print are withheld from
pretraining. Expression, eyes, garment, background and crop vary; captions name what
varies and leave the identity to the trigger, in kohya's folder layout.
"""

import random
from pathlib import Path

from PIL import Image

from lora_lab.pocket.attributes import Attributes, draw_attributes, phrases, with_changes
from lora_lab.pocket.draw import render

TRIGGER = "zqx"
"""A token that pocket never read."""
COUNTS = {"train": 24, "held_out": 24}
REPEATS = {"train": 1, "held_out": 1}
_VARYING = ("garment", "mouth", "eyes", "background")


def draw_person(rng: random.Random) -> Attributes:
    """One picture of the person: everything but the identity is drawn anew."""
    return with_changes(
        draw_attributes(rng),
        hair="wild hair",
        hair_color="turquoise",
        skin="brown",
        glasses="no glasses",
        facial_hair="no beard",
        scar="long scar",
        print="bolt print",
        shift_x=rng.uniform(-0.07, 0.07),
        shift_y=rng.uniform(-0.04, 0.02),
    )


def person_caption(a: Attributes, rng: random.Random) -> str:
    """``portrait of a zqx person, …`` with what varies from picture to picture."""
    words = phrases(a, rng)
    named = [words[name] for name in _VARYING]
    rng.shuffle(named)
    return ", ".join([f"{a.framing} of a {TRIGGER} person", *named])


def write_person(folder: Path, seed: int) -> None:
    """Write ``train/`` and ``held_out/`` below ``folder``."""
    rng = random.Random(f"person/{seed}")
    for part, count in COUNTS.items():
        target = folder / part / f"{REPEATS[part]}_{TRIGGER} person"
        target.mkdir(parents=True, exist_ok=True)
        for i in range(1, count + 1):
            a = draw_person(rng)
            Image.fromarray(render(a)).save(target / f"{i:02d}.png", optimize=True)
            (target / f"{i:02d}.txt").write_text(person_caption(a, rng) + "\n", encoding="utf-8")
