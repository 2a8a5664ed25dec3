"""Rounds of added seeds: a look at the runs so far, and the values that get more of them."""

import logging
from pathlib import Path

from lora_lab.cli.sweep_end import Launch, launch_images
from lora_lab.cli.sweep_plan import Plan, PlannedRun
from lora_lab.cli.sweep_record import Round
from lora_lab.config import TrainConfig
from lora_lab.config.study import further_seeds

log = logging.getLogger(__name__)


def next_round(folder: Path, base: TrainConfig, look: int, after: int, launch: Launch) -> Round:
    """Judge the runs so far and say which values get more seeds.

    Args:
        folder: The sweep folder.
        base: Settings of the base run.
        look: Seeds that the open values have now.
        after: Seeds that they have after the round.
        launch: Has the images of some runs drawn and scored.
    """
    from lora_lab.study.judge.rounds import split_values
    from lora_lab.study.judge.verdict import judge
    from lora_lab.study.read.load import load_sweep

    launch_images(folder, base, launch)  # what is missing is told at the end of the sweep
    most = base.study.max_seeds or look
    found = split_values(judge(load_sweep(folder)), most)
    first = look - len_planned(base)
    seeds = further_seeds(base.study, base.seed)[first : first + after - look]
    chosen = Round(look, list(seeds) if found.open else [], dict(found.open), dict(found.closed))
    for value, why in chosen.open.items():
        log.info("%s gets %d more seeds: %s", value, len(seeds), why)
    for value, why in chosen.closed.items():
        log.info("%s gets no more seeds: %s", value, why)
    return chosen


def len_planned(base: TrainConfig) -> int:
    """Return the count of seeds that every value is trained under."""
    return base.study.seeds if isinstance(base.study.seeds, int) else len(base.study.seeds)


def added_runs(plan: Plan, chosen: Round) -> list[PlannedRun]:
    """Return the runs of a round: the base and the open values under the added seeds."""
    from lora_lab.study.read.load import as_text

    values = {run.value for run in plan.runs if as_text(run.value) in chosen.open}
    return [run for seed in chosen.seeds for run in plan.under(seed, values)]
