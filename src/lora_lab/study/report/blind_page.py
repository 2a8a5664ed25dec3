"""report/blind.html: two images without names, and a file of what was chosen.

Works without a network and by keyboard. Which image is whose stands neither on the page nor in the
answers: both are named by digests.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lora_lab.files import write_text
from lora_lab.study.read.blind import FORMAT, BlindImage, blind_images, partners
from lora_lab.study.read.load import Sweep
from lora_lab.study.report.explorer import MAX_PROMPT, as_script_data
from lora_lab.study.report.page import TEMPLATES, environment, style_hash
from lora_lab.study.report.pictures import MAX_PAGE_BYTES, make_thumbnails

PAGE = "blind.html"
ANSWERS = "blind-answers.json"
"""Name under which the page saves."""
MAX_PAIRS = 240
"""More is more than a person looks at."""
TEXT_BYTES = 200_000


@dataclass(frozen=True)
class BlindPair:
    """Two images of one prompt, image seed and checkpoint."""

    left: BlindImage
    right: BlindImage


def write_blind_page(sweep: Sweep, folder: Path) -> Path | None:
    """Write the page.

    Args:
        sweep: The sweep whose images are shown.
        folder: The report folder.

    Returns:
        The page; None when no value has an image that the base has too.

    Raises:
        LabError: The file can't be written.
    """
    pairs = pairs_of(sweep)
    if not pairs:
        (folder / PAGE).unlink(missing_ok=True)
        return None
    style = (TEMPLATES / "blind.css").read_text(encoding="utf-8")
    script = (TEMPLATES / "blind.js").read_text(encoding="utf-8")
    template = environment().get_template("blind.html.j2")
    text = template.render(
        name=sweep.folder.resolve().name,
        style=Markup(style),
        script=Markup(script),
        style_hash=style_hash(style),
        script_hash=style_hash(script),
        data=as_script_data(_payload(pairs)),
        count=len(pairs),
        answers=ANSWERS,
    )
    write_text(folder / PAGE, text)
    return folder / PAGE


def pairs_of(sweep: Sweep) -> list[BlindPair]:
    """The pairs in the order in which they are shown: prompt by prompt.

    Every value meets the base once under each training seed for each prompt, so that whoever stops
    after some prompts has a whole table of seeds and prompts. Order and sides are drawn from the
    images themselves: the same sweep gives the same page.
    """
    by_prompt: dict[str, list[BlindPair]] = {}
    for place, (run, base) in enumerate(partners(sweep)):
        own, theirs = blind_images(run), blind_images(base)
        seeds: dict[str, list[tuple[str, str, int]]] = {}
        for key in sorted(own.keys() & theirs.keys()):
            seeds.setdefault(key[1], []).append(key)
        for prompt, keys in seeds.items():
            key = keys[place % len(keys)]
            by_prompt.setdefault(prompt, []).append(_sided(own[key], theirs[key]))
    prompts = sorted(by_prompt, key=_digest)
    pairs: list[BlindPair] = []
    for prompt in prompts:
        found = by_prompt[prompt]
        if pairs and len(pairs) + len(found) > MAX_PAIRS:
            break
        random.Random(_digest(prompt)).shuffle(found)
        pairs += found
    return pairs


def _sided(one: BlindImage, other: BlindImage) -> BlindPair:
    swapped = int(_digest(one.key + other.key), 16) % 2
    return BlindPair(other, one) if swapped else BlindPair(one, other)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _payload(pairs: Sequence[BlindPair]) -> dict[str, Any]:
    images = {image.key: image for pair in pairs for image in (pair.left, pair.right)}
    paths = [image.path for image in images.values()]
    thumbnails = make_thumbnails(paths, MAX_PAGE_BYTES - TEXT_BYTES)
    pictures = {key: made for key, image in images.items() if (made := thumbnails.get(image.path))}
    shown = [pair for pair in pairs if {pair.left.key, pair.right.key} <= pictures.keys()]
    return {
        "format": FORMAT,
        "study": _digest(",".join(sorted(pictures)))[:16],
        "pictures": dict(sorted(pictures.items())),
        "pairs": [[p.left.key, p.right.key, p.left.prompt[:MAX_PROMPT]] for p in shown],
    }
