"""The method checked on itself: python -m lora_lab.study.check (docs/verdicts.md has the result).

A/A: the base against the base under other seeds must not be called different. Planted effects (a
learning rate of 0, shuffled captions, a rank of 1 against 32) must be found. Runs that are there
are used again, so that an interrupted check goes on.
"""

import argparse
import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra import compose, initialize_config_dir

from lora_lab.checkpoint.embedded import locate
from lora_lab.config import TrainConfig, check, to_config
from lora_lab.config.store import register_schemas
from lora_lab.errors import LabError, one_line
from lora_lab.files import make_folder, write_json, write_text
from lora_lab.metrics.image_scores import ImageScorer, load_encoders, subject_of
from lora_lab.randomness import shuffled
from lora_lab.run_folder.saved_loras import find_rows
from lora_lab.study.judge.metric_results import BY_NAME, Kind
from lora_lab.study.judge.verdict import Judged, judge
from lora_lab.study.read.load import Run, Sweep, load_run

log = logging.getLogger(__name__)

CONF = Path(__file__).parents[1] / "conf"
FIRST_SEED = 1234
COMPARISONS = 20
"""Base against base."""
ALLOWED = 1
"""So many of them may be called different."""
BASE_RUNS = 3


@dataclass(frozen=True)
class PlantedEffect:
    """A change that the method must find."""

    name: str
    run: str
    parameter: str
    base: str
    """Beginning of the names of the base's runs."""
    what: str


PLANTED = (
    PlantedEffect("learning rate 0", "lr0", "optimizer.lr", "base-", "nothing is learned"),
    PlantedEffect("shuffled captions", "shuffled", "data.dir", "base-", "captions of other images"),
    PlantedEffect("dim 1 against 32", "dim1", "network.dim", "dim32-", "a rank that is too small"),
)


def plan(seeds: int, folder: Path) -> dict[str, list[str]]:
    """Name of each run -> its overrides."""
    base = [FIRST_SEED + index for index in range(seeds)]
    runs = {f"base-{seed}": [f"seed={seed}"] for seed in base}
    runs |= {f"dim32-{s}": [f"seed={s}", "network.dim=32"] for s in base[:BASE_RUNS]}
    # D-Adaptation refuses a rate of exactly 0; with this one no weight moves by a rounding step.
    runs["lr0"] = ["optimizer.lr=1e-12"]
    runs["shuffled"] = [f"data.dir={folder / 'shuffled_captions'}"]
    runs["dim1"] = ["network.dim=1"]
    return runs


def settings(overrides: Sequence[str]) -> TrainConfig:
    """The base config with overrides, on one thread and without a progress bar."""
    register_schemas()
    quiet = ["callbacks.progress=false", "trainer.threads=1"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = to_config(compose("train", [*quiet, *overrides]))
    check(config)
    return config


def shuffle_captions(source: Path, target: Path) -> None:
    """Copies a data folder and gives each training image the caption of another one."""
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


def train_all(folder: Path, runs: dict[str, list[str]]) -> None:
    """Trains what isn't there yet."""
    from lora_lab.data.inputs import SharedInputs
    from lora_lab.train import train

    shared = SharedInputs()
    for number, (name, overrides) in enumerate(runs.items(), 1):
        log.info("%s (%d of %d)", name, number, len(runs))
        train(settings(overrides), folder / name, shared)


def score_all(folder: Path, names: Sequence[str]) -> None:
    """Draws and scores the metric images of each run."""
    config = settings([])
    encoders, _ = load_encoders(config.metrics, folder / "embeddings")
    rows = [find_rows(folder / name).runs[0] for name in names]
    scorer = ImageScorer(folder, config, encoders, subject_of(config.sampling, rows))
    for row in rows:
        for problem in scorer.score_run(row):
            log.warning("%s", problem)


def comparisons(seeds: Sequence[str], count: int = COMPARISONS) -> list[tuple[str, list[str]]]:
    """A value's run and three base runs for each comparison, all of other seeds.

    Every seed serves as the value about equally often; the base runs are drawn from the others, so
    comparisons share runs and are not independent.
    """
    drawn = []
    for index in range(count):
        value = seeds[index % len(seeds)]
        others = [seed for seed in shuffled(list(seeds), 0, "A/A", index) if seed != value]
        drawn.append((value, sorted(others[:BASE_RUNS])))
    return drawn


def compare(folder: Path, parameter: str, value: Run, base: Sequence[Run]) -> Judged:
    """The study's own verdict on one value against its base runs."""
    runs = [replace(run, is_base=True, value="base") for run in base]
    sweep = Sweep(
        folder=folder,
        parameter=parameter,
        values=("value",),
        base_value="base",
        overrides=(),
        runs=(*runs, replace(value, is_base=False, value="value")),
    )
    return judge(sweep).values[0]


def verdicts(one: Judged) -> dict[str, str]:
    """Metric -> better or worse, of the metrics in which a difference was shown."""
    return {
        result.metric: result.verdict.value
        for result in one.results
        if BY_NAME[result.metric].judged and result.verdict in (Kind.BETTER, Kind.WORSE)
    }


def check_runs(folder: Path, names: Sequence[str]) -> dict[str, object]:
    """All comparisons over the runs of a folder.

    Returns:
        ``aa`` (one entry a comparison), ``planted``, ``false_verdicts`` and ``passed``.

    Raises:
        LabError: a comparison could not be judged.
    """
    runs = {name: load_run(folder, {"name": name, "folder": name}) for name in names}
    base = [name for name in names if name.startswith("base-")]
    same = []
    for value, others in comparisons(base):
        one = compare(folder, "seed", runs[value], [runs[name] for name in others])
        same.append(_entry(one, value, others))
    found = []
    for effect in PLANTED:
        others = [name for name in names if name.startswith(effect.base)][:BASE_RUNS]
        one = compare(folder, effect.parameter, runs[effect.run], [runs[n] for n in others])
        found.append({"effect": effect.name, **_entry(one, effect.run, others)})
    false = sum(bool(entry["shown"]) for entry in same)
    passed = false <= ALLOWED and all(entry["shown"] for entry in found)
    return {"aa": same, "planted": found, "false_verdicts": false, "passed": passed}


def _entry(one: Judged, value: str, base: list[str]) -> dict[str, object]:
    if one.reason:
        raise LabError(f"{value} against {', '.join(base)} could not be judged: {one.reason}")
    figures = {
        result.metric: {
            "effect": result.effect,
            "low": result.low,
            "high": result.high,
            "p": result.p,
        }
        for result in one.results
    }
    return {"value": value, "base": base, "shown": verdicts(one), "metrics": figures}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the check; prints what it found and where it is written.

    Returns:
        0 when it passed, 1 when not.
    """
    parser = argparse.ArgumentParser(prog="python -m lora_lab.study.check", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/verdict-check"))
    parser.add_argument("--seeds", type=int, default=16, help="runs of the base, at least 5")
    parser.add_argument(
        "--as-is", action="store_true", help="train nothing: judge the runs that are there"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if options.seeds < BASE_RUNS + 2:
        parser.error(f"--seeds must be >= {BASE_RUNS + 2}, got {options.seeds}")
    try:
        result = _run(make_folder(options.folder).resolve(), options.seeds, options.as_is)
    except LabError as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        return 1
    return 0 if result["passed"] else 1


def _run(folder: Path, seeds: int, as_is: bool) -> dict[str, object]:
    runs = plan(seeds, folder)
    if as_is:
        runs = {name: runs[name] for name in runs if (folder / name / "run.json").is_file()}
    else:
        shuffle_captions(locate("embedded:person"), folder / "shuffled_captions")
        train_all(folder, runs)
    names = [n for n in runs if load_run(folder, {"name": n, "folder": n}).complete]
    score_all(folder, names)
    result = check_runs(folder, names)
    write_json(folder / "verdict-check.json", result)
    sys.stdout.write(_told(result) + f"{folder / 'verdict-check.json'}\n")
    return result


def _told(result: dict[str, object]) -> str:
    lines = []
    for group in ("aa", "planted"):
        entries = result[group]
        assert isinstance(entries, list)
        for entry in entries:
            shown = ", ".join(f"{m}: {v}" for m, v in entry["shown"].items()) or "none shown"
            name = entry.get("effect", entry["value"])
            lines.append(f"{name} against {', '.join(entry['base'])}: {shown}")
    lines.append(f"false verdicts: {result['false_verdicts']} of {COMPARISONS}, at most {ALLOWED}")
    lines.append("passed" if result["passed"] else "NOT passed")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
