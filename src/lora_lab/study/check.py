"""The method checked on itself: python -m lora_lab.study.check (docs/verdicts.md has the result).

Null studies: runs that differ in nothing but their seed are dealt into studies of a base and three
values with three seeds each, and no study may show a difference more often than in 5 of 100.
Planted effects must be found. All of it goes through the study's own code. Runs that are there are
used again, so that an interrupted check goes on.
"""

import argparse
import logging
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from hydra import compose, initialize_config_dir

from lora_lab.checkpoint.embedded import locate
from lora_lab.cli.ending import DEBUG, OneLineParser, path_of, run_plain, tell
from lora_lab.cli.log_lines import log_to_stderr
from lora_lab.config import TrainConfig, check, to_config
from lora_lab.config.metrics import BY_NAME
from lora_lab.config.store import register_schemas
from lora_lab.errors import LabError
from lora_lab.files import make_folder, write_json, write_text
from lora_lab.metrics.image_scores import ImageScorer, load_scorer
from lora_lab.randomness import shuffled
from lora_lab.run_folder.record import read_facts
from lora_lab.run_folder.saved_loras import find_rows
from lora_lab.statistics.family import ALPHA
from lora_lab.study.judge.metric_results import Verdict
from lora_lab.study.judge.verdict import Study, judge
from lora_lab.study.read.load import Run, Sweep, load_run
from lora_lab.training.stack_plan import LARGEST, make_stacks

log = logging.getLogger(__name__)

CONF = Path(__file__).parents[1] / "conf"
FIRST_SEED = 1234
SEEDS = 3
"""Of base and values in each study."""
VALUES = 3
"""In each study in which nothing differs."""
STUDY_RUNS = SEEDS * (1 + VALUES)
FEW_IMAGES = (
    *("metrics.steps=6", "metrics.seeds=[101,102]", "metrics.plain_seeds=[201]"),
    *("save_every=1", "sampling.subject=zqx person"),
)
"""Less than a sweep draws."""
SHORT = (
    *FEW_IMAGES,
    *("epochs=15", "optimizer=adamw", "optimizer.lr=1e-3", "network.train_text_encoder=false"),
)
"""120 steps on pocket at a rate that learns in so few of them: a run takes seconds, and short runs
vary more than long ones, which makes the check harder."""
WHOLE = FEW_IMAGES
"""The base config's own 600 steps: what a low rank costs is only seen once it is filled."""


@dataclass(frozen=True)
class PlantedEffect:
    """A change whose verdict is known."""

    name: str
    """Beginning of the names of its runs."""
    title: str
    overrides: tuple[str, ...]
    parameter: str
    base: str = "base"
    """Beginning of the names of the runs that it stands against."""
    length: tuple[str, ...] = SHORT
    """Settings that its runs share with those that it stands against."""
    must_be_found: bool = True


PLANTED = (
    # D-Adaptation refuses a rate of exactly 0; with this one no weight moves by a rounding step.
    PlantedEffect("lr0", "learning rate 0", ("optimizer.lr=1e-12",), "optimizer.lr"),
    PlantedEffect("shuffled", "captions of other images", ("data.dir={captions}",), "data.dir"),
    PlantedEffect("dim1", "dim 1 against 32", ("network.dim=1",), "network.dim", "dim32", WHOLE),
    PlantedEffect(
        "dim8", "dim 8 against 16", ("network.dim=8",), "network.dim", must_be_found=False
    ),
    PlantedEffect(
        *("offset", "noise offset 0.1", ("objective.noise_offset=0.1",), "objective.noise_offset"),
        must_be_found=False,
    ),
)
DIM_32 = (*WHOLE, "network.dim=32")


def plan(pool: int, repeats: int, folder: Path) -> dict[str, list[str]]:
    """Name of each run -> its overrides.

    Args:
        pool: Runs of the base, which the null studies are dealt from.
        repeats: How often each planted effect is trained, each time from fresh seeds.
        folder: Of the check.
    """
    fresh = range(FIRST_SEED, FIRST_SEED + repeats * SEEDS)
    base = range(FIRST_SEED, FIRST_SEED + max(pool, len(fresh)))
    kinds = {"dim32": DIM_32, **{one.name: (*one.length, *one.overrides) for one in PLANTED}}
    captions = folder / "shuffled_captions"
    runs: dict[str, list[str]] = {}
    for name, overrides in kinds.items():
        filled = [text.format(captions=captions) for text in overrides]
        runs |= {f"{name}-{seed}": [f"seed={seed}", *filled] for seed in fresh}
    return runs | {f"base-{seed}": [f"seed={seed}", *SHORT] for seed in base}


def settings(overrides: Sequence[str]) -> TrainConfig:
    """The base config with overrides, on one thread and without a progress bar."""
    register_schemas()
    quiet = ["callbacks.progress=false", "trainer.threads=1"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = to_config(compose("train", [*quiet, *overrides]))
    check(config)
    return config


def shuffle_captions(source: Path, target: Path) -> None:
    """Copy a data folder and give each training image the caption of another one."""
    if target.is_dir():
        return
    draft = target.with_name(f".{target.name}")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(source, draft)
    files = {str(path): path for path in sorted((draft / "train").rglob("*.txt"))}
    order = shuffled(list(files), 0, "shuffled captions")
    texts = [files[name].read_text(encoding="utf-8") for name in order]
    for name, text in zip(order, [*texts[1:], texts[0]], strict=True):
        write_text(files[name], text)
    draft.rename(target)


def train_all(folder: Path, runs: Mapping[str, Sequence[str]], most: int) -> None:
    """Train what isn't there yet, several runs in one pass, and score their images.

    Args:
        folder: Of the check.
        runs: Name -> overrides.
        most: Runs in a stack at most.
    """
    from lora_lab.data.inputs import SharedInputs
    from lora_lab.train import train
    from lora_lab.training.stack import train_together
    from lora_lab.training.stacked_run import StackedRun

    there = [name for name in runs if (read_facts(folder / name) or {}).get("status") == "complete"]
    log.info("%d of %d runs are there", len(there), len(runs))
    score_all(folder, there)
    left = [name for name in runs if name not in there]
    configs = [settings(runs[name]) for name in left]
    stacks, _ = make_stacks(configs, most, 1)
    shared = SharedInputs()

    def job(number: int) -> Callable[[StackedRun], object]:
        return lambda stacked: train(configs[number], folder / left[number], shared, None, stacked)

    for place, stack in enumerate(stacks, 1):
        names = [left[number] for number in stack]
        log.info("stack %d of %d: %s", place, len(stacks), ", ".join(names))
        train_together([job(number) for number in stack], names)
        score_all(folder, names)


def score_all(folder: Path, names: Sequence[str]) -> None:
    """Draw and score the metric images of runs."""
    if not names:
        return
    scorer = scorer_of(folder)
    for name in names:
        for problem in scorer.score_run(find_rows(folder / name).runs[0]):
            log.warning("%s", problem)


@lru_cache(maxsize=1)
def scorer_of(folder: Path) -> ImageScorer:
    """What scores the runs of the check: that of every sweep, with the settings of its base.

    Raises:
        LabError: CLIP, the base checkpoint or the training images can't be read.
    """
    scorer, problems = load_scorer(folder, settings(SHORT))
    for problem in problems:
        log.warning("%s", problem)
    return scorer


def deal(names: Sequence[str], number: int) -> list[list[str]]:
    """Deal runs into studies that share none; what is left over stays out.

    Args:
        names: Of the pool.
        number: Which of many ways to deal them.
    """
    order = shuffled(list(names), 0, "null studies", number)
    return [order[at : at + STUDY_RUNS] for at in range(0, len(order) - STUDY_RUNS + 1, STUDY_RUNS)]


def null_study(folder: Path, runs: Sequence[Run]) -> Study:
    """Judge runs of one config as if they were a base and values under the same seeds.

    Runs of different seeds stand in for pairs, which then share no noise: their differences vary
    more than those of true pairs, and alike in all.
    """
    told = []
    for place, run in enumerate(runs):
        member, seed = divmod(place, SEEDS)
        told.append(replace(run, is_base=member == 0, value=f"value {member}", seed=seed))
    return _judge(folder, "seed", told)


def planted_study(
    folder: Path, effect: PlantedEffect, runs: Mapping[str, Run], repeat: int
) -> Study:
    """Judge one repetition of a planted effect, value and base under the same fresh seeds."""
    first = FIRST_SEED + repeat * SEEDS
    told = []
    for seed in range(first, first + SEEDS):
        told.append(replace(runs[f"{effect.base}-{seed}"], is_base=True, value="base"))
        told.append(replace(runs[f"{effect.name}-{seed}"], is_base=False, value=effect.name))
    return _judge(folder, effect.parameter, told)


def _judge(folder: Path, parameter: str, runs: Sequence[Run]) -> Study:
    base = next(run.value for run in runs if run.is_base)
    values = tuple(dict.fromkeys(run.value for run in runs if not run.is_base))
    return judge(Sweep(folder, parameter, values, base, (), tuple(runs)))


def verdicts(study: Study) -> dict[str, str]:
    """Value and metric -> better or worse, where a difference was shown."""
    return {
        f"{one.label}, {result.metric}": result.verdict.value
        for one in study.values
        for result in one.results
        if BY_NAME[result.metric].judged and result.verdict in (Verdict.BETTER, Verdict.WORSE)
    }


def check_null(folder: Path, runs: Mapping[str, Run], deals: int) -> dict[str, object]:
    """How often studies in which nothing differs show a difference.

    Args:
        folder: Of the check.
        runs: Name -> run.
        deals: Ways to deal the pool; studies of one way share no run, those of two ways do.

    Returns:
        The share over all studies, its standard error from as many studies as share no run, and
        whether 5 % lie within two of those.
    """
    pool = [name for name in runs if name.startswith("base-")]
    found = [
        bool(verdicts(null_study(folder, [runs[name] for name in names])))
        for number in range(deals)
        for names in deal(pool, number)
    ]
    disjoint = len(pool) // STUDY_RUNS
    share = sum(found) / len(found) if found else math.nan
    error = math.sqrt(max(share, ALPHA) * (1 - share) / disjoint) if disjoint else math.nan
    return {
        "pool": len(pool),
        "studies": len(found),
        "disjoint": disjoint,
        "share": share,
        "standard_error": error,
        "passed": bool(found) and share <= ALPHA + 2 * error,
    }


def check_planted(folder: Path, runs: Mapping[str, Run], repeats: int) -> list[dict[str, object]]:
    """How often each planted effect was found, and in which metrics."""
    rows: list[dict[str, object]] = []
    for effect in PLANTED:
        studies = [planted_study(folder, effect, runs, repeat) for repeat in range(repeats)]
        shown = [verdicts(study) for study in studies]
        found = sum(map(bool, shown))
        rows.append(
            {
                "effect": effect.title,
                "found": found,
                "of": repeats,
                "passed": found == repeats or not effect.must_be_found,
                "shown": shown,
                "reasons": sorted({o.reason for s in studies for o in s.values if o.reason}),
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check; print what it found and where it is written.

    Returns:
        0 when it passed, 1 when not.
    """
    parser = OneLineParser(prog="python -m lora_lab.study.check", description=__doc__)
    parser.add_argument("--folder", type=path_of, default=Path("runs/verdict-check"))
    parser.add_argument("--pool", type=int, default=96, help="runs that differ by their seed alone")
    parser.add_argument("--repeats", type=int, default=5, help="of each planted effect")
    parser.add_argument("--deals", type=int, default=50, help="ways to deal the pool into studies")
    parser.add_argument("--stack", type=int, default=LARGEST, help="runs trained in one pass")
    parser.add_argument(
        "--as-is", action="store_true", help="train nothing: judge the runs that are there"
    )
    parser.add_argument(DEBUG, action="store_true", help="show where an unforeseen error arose")
    options = parser.parse_args(arguments)
    log_to_stderr()
    if options.pool < STUDY_RUNS:
        parser.error(f"--pool must be >= {STUDY_RUNS}, got {options.pool}")
    for name in ("repeats", "deals", "stack"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be >= 1, got {getattr(options, name)}")
    try:
        result = _run(options)
    except LabError as error:
        tell([str(error)])
        return 1
    return 0 if result["passed"] else 1


def _run(options: argparse.Namespace) -> dict[str, object]:
    folder = make_folder(options.folder).resolve()
    runs = plan(options.pool, options.repeats, folder)
    if not options.as_is:
        shuffle_captions(locate("embedded:person"), folder / "shuffled_captions")
        train_all(folder, runs, options.stack)
    there = [name for name in runs if (folder / name / "run.json").is_file()]
    loaded = {name: load_run(folder, {"name": name, "folder": name}) for name in there}
    complete = [name for name, run in loaded.items() if run.complete]
    score_all(folder, complete)
    judged = {name: load_run(folder, {"name": name, "folder": name}) for name in complete}
    result = check_runs(folder, judged, options.repeats, options.deals)
    write_json(folder / "verdict-check.json", result)
    sys.stdout.write(_told(result) + f"{folder / 'verdict-check.json'}\n")
    return result


def check_runs(
    folder: Path, runs: Mapping[str, Run], repeats: int, deals: int
) -> dict[str, object]:
    """Null studies and planted effects over the runs of a folder.

    Args:
        folder: Of the check.
        runs: Name -> complete run.
        repeats: Of each planted effect; fewer where fewer were trained.
        deals: Ways to deal the pool.
    """
    whole = [
        repeat
        for repeat in range(repeats)
        if all(
            f"{name}-{FIRST_SEED + repeat * SEEDS + seed}" in runs
            for name in ("base", "dim32", *(one.name for one in PLANTED))
            for seed in range(SEEDS)
        )
    ]
    null = check_null(folder, runs, deals)
    planted = check_planted(folder, runs, len(whole))
    passed = bool(null["passed"]) and bool(whole) and all(bool(row["passed"]) for row in planted)
    return {"null": null, "planted": planted, "passed": passed}


def _told(result: Mapping[str, object]) -> str:
    null, planted = result["null"], result["planted"]
    assert isinstance(null, dict) and isinstance(planted, list)
    lines = [
        f"nothing differs: {100 * null['share']:.1f} % of {null['studies']} studies show a "
        f"difference, ± {100 * null['standard_error']:.1f} % ({null['disjoint']} share no run)"
    ]
    lines += [f"{row['effect']}: found in {row['found']} of {row['of']}" for row in planted]
    lines.append("passed" if result["passed"] else "NOT passed")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(run_plain(main))
