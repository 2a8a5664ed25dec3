"""What the page needs to show any image beside any other: rows, prompts, steps and thumbnails."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lora_lab.study.judge.verdict import Judged, Study
from lora_lab.study.report.pictures import make_thumbnails
from lora_lab.study.report.run_images import RunImage, prompts_of, study_images

MAX_PROMPT = 400
"""Characters of a prompt that are shown."""


@dataclass(frozen=True)
class Explorer:
    """The images section."""

    data: Markup
    """JSON that is safe inside a script element."""
    count: int
    """Images in the run folders."""
    left_out: int
    """Images without a thumbnail, because the page would be too large."""
    unreadable: tuple[str, ...]
    """Files that are no picture."""


def load_explorer(study: Study, page: Path, budget: int) -> Explorer | None:
    """Read the runs' images and make their thumbnails.

    Args:
        study: The judged sweep.
        page: The folder of the page.
        budget: Bytes that all thumbnails may take in it.

    Returns:
        What the page shows; None when no run has images.
    """
    images = study_images(study)
    every = [image for found in images.values() for image in found]
    if not every:
        return None
    ordered = [image.path for image in sorted(every, key=_importance)]
    thumbnails = make_thumbnails(ordered, budget)
    unreadable = [path for path, made in thumbnails.items() if made is None]
    return Explorer(
        data=as_script_data(_payload(study, images, thumbnails, page)),
        count=len(every),
        left_out=len(every) - len(thumbnails),
        unreadable=tuple(str(path.relative_to(study.sweep.folder)) for path in unreadable)
        if all(path.is_relative_to(study.sweep.folder) for path in unreadable)
        else tuple(path.name for path in unreadable),
    )


def as_script_data(value: Any) -> Markup:
    """JSON in which no character can end the script element that it stands in."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _importance(image: RunImage) -> tuple[float, float]:
    """The end first, then the middle, then what lies between."""
    if image.share >= 1:
        return 0.0, 0.0
    return 1.0, abs(image.share - 0.5)


def _payload(
    study: Study,
    images: Mapping[str, list[RunImage]],
    thumbnails: Mapping[Path, str | None],
    page: Path,
) -> dict[str, Any]:
    every = [image for found in images.values() for image in found]
    checkpoints = sorted({image.checkpoint for image in every})
    prompts = prompts_of(every)
    shares = sorted({image.share for image in every})
    rows = [one for one in _in_order(study) if one.run.name in images or not one.run.complete]
    cells: dict[str, list[Any]] = {}
    for row, one in enumerate(rows):
        for image in images.get(one.run.name, []):
            place = (
                checkpoints.index(image.checkpoint),
                row,
                prompts.index(image.prompt),
                shares.index(image.share),
            )
            made = thumbnails.get(image.path)
            bad = image.path in thumbnails and made is None
            cells[",".join(map(str, place))] = [
                made or "",
                image.href(page),
                image.step,
                image.seed,
                "can’t be read" if bad else "",
            ]
    return {
        "parameter": study.sweep.parameter,
        "checkpoints": checkpoints,
        "prompts": [_prompt(name, every) for name in prompts],
        "shares": [f"{100 * share:.3g} %" if share else "saved" for share in shares],
        "rows": [_row(study, one) for one in rows],
        "cells": cells,
    }


def _in_order(study: Study) -> list[Judged]:
    """The base's runs first: what every value is looked at against."""
    base = [one for one in study.judged if one.run.is_base]
    return [*base, *(one for one in study.judged if not one.run.is_base)]


def _row(study: Study, one: Judged) -> dict[str, Any]:
    label, note = one.label, "" if one.run.is_base else one.verdict.value
    if one.run.is_base:
        label = study.sweep.base_value or "base"
        note = f"base, seed {one.run.seed}" if one.run.seed is not None else one.run.name
    missing = {"complete": "image missing", "missing": "run missing"}.get(
        one.run.status, f"run {one.run.status}"
    )
    return {"label": label, "note": note, "base": one.run.is_base, "missing": missing}


def _prompt(name: str, images: list[RunImage]) -> dict[str, str]:
    text = next((image.text for image in images if image.prompt == name and image.text), "")
    title = name.replace("-", " ")
    return {"name": title[:1].upper() + title[1:], "text": text[:MAX_PROMPT]}
