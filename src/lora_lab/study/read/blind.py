"""A person's blind choices between pairs of images: which images there are, and the answers file.

The page shows two images of one prompt, image seed and checkpoint, of a value and the base under
one training seed. An answers file names images by digests, so that it too tells nothing.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lora_lab.errors import ConfigError, LabError, one_line
from lora_lab.files import read_json
from lora_lab.images.png_info import read_recipe
from lora_lab.statistics.paired import Scores
from lora_lab.study.read.load import Run, Sweep

FORMAT = "lora_lab blind answers 1"
METRIC = "blind"
"""Name of the metric that the answers make."""
CHOICES = {"left": (1.0, 0.0), "right": (0.0, 1.0), "tie": (0.5, 0.5)}
"""Choice -> what the left and the right image get."""
METRIC_IMAGES = "metrics"
MAX_BYTES = 2**23  # an answer takes about a hundred bytes


@dataclass(frozen=True)
class BlindImage:
    """One image that may be shown."""

    run: Run
    path: Path
    prompt: str
    seed: int
    """Of the image."""
    checkpoint: str
    """Name and digest of what drew it."""
    key: str
    """Names the image in an answers file; 16 hex digits."""


@dataclass(frozen=True)
class Answer:
    """What was chosen in one pair."""

    one: BlindImage
    """Of the value."""
    base: BlindImage
    score: float
    """1: the value's image, 0: the base's, 0.5: a tie."""


@dataclass(frozen=True)
class Blind:
    """All answers of a file."""

    answers: tuple[Answer, ...] = ()
    notes: tuple[str, ...] = ()
    """What was left out, one sentence each."""


def blind_images(run: Run) -> dict[tuple[str, str, int], BlindImage]:
    """The final images of a run: those that were drawn to be measured, or else the grids'.

    Returns:
        (checkpoint, prompt, image seed) -> image.
    """
    if not run.complete:
        return {}
    root = run.folder / "images"
    measured = sorted((root / METRIC_IMAGES).glob("*.png"))
    paths = measured or sorted(
        (path for path in root.rglob("*.png") if METRIC_IMAGES not in path.parts),
        key=lambda path: path.name,  # the step leads: the last one stays
    )
    found = {}
    for path in paths:
        recipe = read_recipe(path)
        if recipe is None:
            continue
        digest = hashlib.sha256(f"{run.name}\n{run.seed}\n".encode() + path.read_bytes())
        checkpoint = f"{recipe.model} {recipe.model_hash}"
        image = BlindImage(
            run, path, recipe.prompt, recipe.seed, checkpoint, digest.hexdigest()[:16]
        )
        found[checkpoint, recipe.prompt, recipe.seed] = image
    return found


def partners(sweep: Sweep) -> list[tuple[Run, Run]]:
    """Each complete run of a value with the base's of the same seed."""
    bases = {run.seed: run for run in sweep.base_runs if run.complete}
    return [
        (run, bases[run.seed])
        for run in sweep.runs
        if not run.is_base and run.complete and run.seed in bases
    ]


def read_answers(path: Path, sweep: Sweep) -> Blind:
    """Read the file that report/blind.html saves.

    Args:
        path: The answers.
        sweep: The sweep that they are about.

    Raises:
        ConfigError: There is no such file, it holds no answers, or those of another study.
        LabError: The file can't be read.
    """
    rows = _rows(path)
    images = {image.key: image for run in sweep.runs for image in blind_images(run).values()}
    answers: dict[tuple[str, str], Answer] = {}
    unknown = 0
    for left, right, choice in rows:
        pair = images.get(left), images.get(right)
        if pair[0] is None or pair[1] is None or pair[0].run.is_base == pair[1].run.is_base:
            unknown += 1
            continue
        of_left, of_right = CHOICES[choice]
        value, base, score = (pair[0], pair[1], of_left)
        if pair[0].run.is_base:
            value, base, score = (pair[1], pair[0], of_right)
        answers[value.key, base.key] = Answer(value, base, score)  # the last answer counts
    if not answers:
        raise ConfigError(
            f"{path} holds answers of another study: none of its images is in {sweep.folder}; "
            "name the file that this sweep's report/blind.html saved"
        )
    notes = []
    if unknown:
        notes.append(
            f"{unknown} of {len(rows)} blind answers are about images that are not in this sweep "
            "any more: they were left out"
        )
    return Blind(tuple(answers.values()), tuple(notes))


def _rows(path: Path) -> list[tuple[str, str, str]]:
    """(left image, right image, choice) of each answer."""
    try:
        content = read_json(path, MAX_BYTES)
    except FileNotFoundError as error:
        raise ConfigError(
            f"--blind {path} is missing; save it on the page report/blind.html"
        ) from error
    except (OSError, ValueError) as error:
        raise LabError(
            f"{path} can't be read as JSON ({one_line(error, 100)}); save it again on blind.html"
        ) from error
    try:
        if content["format"] != FORMAT:
            raise KeyError
        rows = [(str(a["left"]), str(a["right"]), str(a["choice"])) for a in content["answers"]]
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is not an answers file; name the one that report/blind.html saved"
        ) from error
    if wrong := [choice for _, _, choice in rows if choice not in CHOICES]:
        raise ConfigError(f"{path}: a choice must be left, right or tie, got {wrong[0]!r}")
    if not rows:
        raise ConfigError(f"{path} holds no answers yet; choose on report/blind.html and save")
    return rows


def with_answers(runs: Iterable[Run], blind: Blind) -> dict[str, Scores]:
    """Name of a run -> its scores in the blind metric.

    A value's run has 1 where its image was chosen, -1 where the base's was, 0 for a tie; the base's
    run has 0 there, so that value - base is what the value won.
    """
    scores: dict[str, dict[tuple[str, str], float]] = {run.name: {} for run in runs}
    for answer in blind.answers:
        unit = answer.one.prompt, f"{answer.one.seed} {answer.one.checkpoint}"
        scores[answer.one.run.name][unit] = 2 * answer.score - 1
        scores[answer.base.run.name][unit] = 0.0
    return {name: units for name, units in scores.items() if units}


def with_blind(sweep: Sweep, blind: Blind) -> Sweep:
    """The sweep with the choices as one more metric of its runs."""
    scores = with_answers(sweep.runs, blind)
    runs = tuple(
        replace(run, scores=run.scores | {METRIC: scores[run.name]}) if run.name in scores else run
        for run in sweep.runs
    )
    return replace(sweep, runs=runs, notes=(*sweep.notes, *blind.notes))


def agreement(answers: Iterable[Answer], metric: str) -> tuple[int, int]:
    """How often a metric prefers the image that was chosen.

    Args:
        answers: Ties are left out.
        metric: One that was measured image by image, higher is better.

    Returns:
        Answers that agree, and answers that the metric says anything of.
    """
    agreed = told = 0
    for answer in answers:
        scores: list[Mapping[tuple[str, str], float]] = [
            image.run.scores.get(metric, {}) for image in (answer.one, answer.base)
        ]
        unit = answer.one.prompt, str(answer.one.seed)
        if answer.score == 0.5 or any(unit not in found for found in scores):
            continue
        difference = scores[0][unit] - scores[1][unit]
        if difference:
            told += 1
            agreed += (difference > 0) == (answer.score > 0.5)
    return agreed, told
