"""Which of a run's LoRAs to use, and at which weight: chosen on some prompts, reported on others.

Metrics have different units, so they are averaged as ranks (LyCORIS, arXiv 2309.14859, sec. 5).
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from lora_lab.config import TrainConfig
from lora_lab.config.metrics import METRICS
from lora_lab.errors import LabError
from lora_lab.metrics.image_scores import ImageScorer, load_scorer, scorable
from lora_lab.run_folder.choice_file import CHOICE_FILE, Choice, write_choice
from lora_lab.run_folder.saved_loras import RunLoRAs
from lora_lab.run_folder.scores_file import SCORES_FILE, read_scores
from lora_lab.statistics.paired import mean_of

log = logging.getLogger(__name__)

IMAGES = "choice"
SEEDS = 2
"""Image seeds of each prompt for choosing."""
WITHOUT_RANK = {metric.name for metric in METRICS if not metric.judged}
"""Metrics that another one speaks for."""


def choose_checkpoints(folder: Path, config: TrainConfig) -> list[str]:
    """Choose a LoRA and a weight for every complete run of a sweep or for a single run.

    Args:
        folder: A sweep folder or a run folder.
        config: Settings of the base run.

    Returns:
        One line for each run that nothing could be chosen in.

    Raises:
        LabError: CLIP, the base checkpoint or the training images can't be read.
    """
    runs = scorable(folder)
    if not runs:
        return ["no run was trained to its end"]
    scorer, problems = load_scorer(folder, config)
    for run in runs:
        problems += scorer.score_run(run)
        try:
            choice = choose(run, scorer)
        except LabError as error:
            problems.append(f"{run.folder.name}: {error}")
            continue
        write_choice(run.folder / CHOICE_FILE, choice)
        log.info("%s: step %d at weight %g", run.folder.name, choice.step, choice.weight)
    return problems


def choose(run: RunLoRAs, scorer: ImageScorer) -> Choice:
    """The best of a run's LoRAs at weight 1, then the weight that suits it.

    Raises:
        LabError: No image could be drawn.
    """
    metrics = scorer.metrics
    folder = run.folder / "images" / IMAGES
    asked = metrics.choice_prompts, metrics.seeds[:SEEDS]

    def means(loras: list[tuple[Path, float, Path]]) -> list[dict[str, float]]:
        scorer.draw_ahead(loras, *asked)
        scored = [scorer.score(*lora, *asked)[0] for lora in loras]
        return [{name: mean_of(units) for name, units in scores.items()} for scores in scored]

    saves = means([(save.path, 1.0, folder / f"{save.step:08d}") for save in run.saves])
    best, rank = best_of(saves)
    save = run.saves[best]
    weights = sorted({1.0, *metrics.choice_weights}, key=lambda weight: abs(weight - 1))
    others = [(save.path, w, folder / f"{save.step:08d}-{w:g}") for w in weights[1:]]
    by_weight = [saves[best], *means(others)]
    weight = weights[best_of(by_weight)[0]]
    reported, _ = scorer.score(save.path, weight, folder / "chosen", metrics.prompts, metrics.seeds)
    final, _ = read_scores(run.folder / SCORES_FILE)
    return Choice(
        step=save.step,
        weight=weight,
        rank=rank,
        chosen={metric: mean_of(units) for metric, units in reported.items()},
        final={metric: mean_of(units) for metric, units in final.items() if metric in reported},
    )


def best_of(candidates: Sequence[Mapping[str, float]]) -> tuple[int, float]:
    """The candidate with the highest mean rank over its metrics, the first of equals.

    Args:
        candidates: Metric -> mean, higher is better; of all candidates the same metrics.

    Returns:
        Its index and its mean rank from 0 to 1.

    Raises:
        LabError: No metric was measured in all of them.
    """
    shared = set.intersection(*(set(one) for one in candidates)) - WITHOUT_RANK
    table = np.array([[one[name] for name in sorted(shared)] for one in candidates])
    table = table[:, np.isfinite(table).all(axis=0)] if shared else table
    if table.size == 0:
        raise LabError("no metric was measured on all checkpoints, so none could be chosen")
    if len(candidates) == 1:
        return 0, 1.0
    ranks = (stats.rankdata(table, axis=0) - 1) / (len(candidates) - 1)
    mean = np.round(ranks.mean(axis=1), 9)
    return int(np.argmax(mean)), float(mean.max())
