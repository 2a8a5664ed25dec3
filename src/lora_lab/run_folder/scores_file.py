"""image_scores.json in a run folder: what each metric image of its final LoRA scored."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lora_lab.files import read_json, write_json
from lora_lab.statistics.paired import Scores

SCORES_FILE = "image_scores.json"


class Anchors(NamedTuple):
    """Between which figures a metric of identity can be thought to lie."""

    floor: float
    """What the bare base reaches."""
    ceiling: float
    """How similar real pictures of the subject are to each other."""


NO_ANCHORS = Anchors(math.nan, math.nan)


def write_scores(
    path: Path,
    recipe: Mapping[str, Any],
    scores: Mapping[str, Scores],
    anchors: Mapping[str, Anchors] | None = None,
) -> None:
    """Write the scores of a run.

    Args:
        path: The file.
        recipe: What they were measured with: encoders, LoRA file, prompts.
        scores: Metric -> (prompt, seed) -> score; one that isn't finite is left out.
        anchors: Metric -> its floor and ceiling, where it has them; only those that are finite.

    Raises:
        LabError: The file can't be written.
    """
    rows = [
        [metric, cluster, unit, score]
        for metric, units in scores.items()
        for (cluster, unit), score in units.items()
        if math.isfinite(score)
    ]
    known = {name: list(a) for name, a in (anchors or {}).items() if all(map(math.isfinite, a))}
    content = {
        "recipe": dict(recipe),
        "anchors": known,
        "columns": list(COLUMNS),
        "scores": rows,
    }
    write_json(path, {**content, CHECKSUM: _checksum(content)})


CHECKSUM = "sha256"
"""Of all else in the file; files of earlier versions have none."""
COLUMNS = ("metric", "prompt", "seed", "score")


def read_scores(path: Path) -> tuple[dict[str, Scores], str]:
    """Read the scores of a run.

    Args:
        path: The file; without it nothing is known, which is no problem.

    Returns:
        Metric -> (prompt, seed) -> score, and what is wrong with the file; empty when nothing is.
    """
    try:
        content = _content(path)
        rows = [(str(m), str(c), str(u), float(s)) for m, c, u, s in content["scores"]]
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}, f"{path.name} can't be read: the image metrics of this run are missing"
    found: dict[str, dict[tuple[str, str], float]] = {}
    for metric, cluster, unit, score in rows:
        if math.isfinite(score):
            found.setdefault(metric, {})[cluster, unit] = score
    return dict(found), ""


def read_anchors(path: Path) -> dict[str, Anchors]:
    """Metric -> its floor and ceiling; empty where the file tells none or can't be read."""
    try:
        anchors = _content(path)["anchors"].items()
        return {str(name): Anchors(float(low), float(high)) for name, (low, high) in anchors}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _content(path: Path) -> dict[str, Any]:
    """The file, held against its checksum.

    Raises:
        OSError, ValueError: It can't be read, or holds other figures than were written.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError("it holds no object")
    if content.pop(CHECKSUM, None) not in (None, _checksum(content)):
        raise ValueError("its checksum is wrong")
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_recipe(path: Path) -> dict[str, Any] | None:
    """What the scores of a run were measured with; None when there are none to be read."""
    try:
        recipe = _content(path)["recipe"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return recipe if isinstance(recipe, dict) else None
