"""How often each test calls a difference where none is, and what it sees: simulated studies.

    python -m lora_lab.study.simulate                 the table and the figure of docs/verdicts.md
    python -m lora_lab.study.simulate --studies 300   a rough one in seconds

A study is a base and V values under K seeds, measured in C clusters in M metrics. Every run is a
sum of a seed's part, a cluster's part and a rest; differences share the base.
"""

import csv
import io
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray
from scipy import special, stats

from lora_lab.cli.ending import DEBUG, OneLineParser, path_of, run_plain
from lora_lab.files import atomic_path, make_folder, write_text
from lora_lab.statistics.crossed import Array, Effects, crossed_effects
from lora_lab.statistics.family import (
    ALPHA,
    EARLY_SHARE,
    PRIMARY_SHARE,
    decide,
    look_counts,
    look_levels,
)
from lora_lab.statistics.power import worth_more_seeds
from lora_lab.study.figures.style import LIGHT, WIDE, drawing, panels, tidy

PARTS = {
    "seeds": (1.0, 0.05, 0.3),
    "clusters": (0.02, 1.0, 0.3),
    "rest": (0.02, 0.05, 1.0),
    "balanced": (0.5, 1.0, 1.0),
}
"""What dominates -> standard deviation of seed, cluster and rest in a run."""
SPREADS = {"equal": 1.0, "one varies more": 0.1, "each half the one before": 0.5}
"""Name -> standard deviation of a value beside that of the value before (of the first one)."""
SEEDS = (1, 2, 3, 4, 5, 6, 7, 8)
CLUSTERS = (5, 8, 24)
VALUES = (1, 3, 8, 20)
CORRELATIONS = (0.0, 0.5, 0.9)
METRICS = 5
STUDIES = 3000
BASE_RUNS = 3
"""Seeds of the base where each value has one."""
CELLS_BY_CHANCE = 0.005
"""Among a thousand cells at 5 % some exceed three standard errors by chance."""
ROUNDS = (3, 8)
"""`study.seeds` and `study.max_seeds` of the studies with several looks."""
MOST_ROUNDS = 1000
"""Studies with several looks are judged one by one."""
LIKE_AT_PAUSE = 0.8
"""Correlation of a run's figures at its pause with those at its end."""
MARKS = "v^<>sDPo"
SHOWN_EFFECT = "1.0"

# pocket's held-out loss after 480 steps, in percent of the base's: dim 2, 8 and 32 against 16 under
# three seeds, and a difference of 1 % that varies between dim 2 and dim 8.
POCKET_EFFECTS = (1.86, 1.0, 0.46, -0.21)
POCKET_SEED_SDS = (0.56, 0.40, 0.28, 0.09)
POCKET_CLUSTER_SDS = (0.45, 0.32, 0.22, 0.07)
POCKET_REST_SDS = (0.45, 0.32, 0.22, 0.07)
POCKET_CLUSTERS = 8


@dataclass(frozen=True)
class SimulatedCell:
    """One kind of study in which nothing differs."""

    seeds: int
    clusters: int
    values: int
    parts: str = "seeds"
    spread: str = "equal"
    metrics: int = 1
    correlation: float = 0.0
    """Of the metrics of one run."""

    @property
    def spreads(self) -> Array:
        """Standard deviation of each value's difference, (V,)."""
        if self.spread == "each half the one before":
            return np.asarray(0.5 ** np.arange(self.values))
        tail = SPREADS[self.spread]
        return np.array([1.0] + [tail] * (self.values - 1))


Found = NDArray[np.bool_]
Test = Callable[[Effects, float], Found]
"""(Effects (N, M, V), error rate) -> which are shown, (N, M, V)."""


def draw(cell: SimulatedCell, studies: int, rng: np.random.Generator) -> Effects:
    """Studies without any difference, (N, M, V)."""
    if cell.seeds == 1:
        return _draw_one_seed(cell, studies, rng)
    return crossed_effects(_tables(cell, studies, rng))


def _tables(cell: SimulatedCell, studies: int, rng: np.random.Generator) -> Array:
    """Value - base under each seed in each cluster, (N, M, V, K, C)."""
    shapes = ((cell.seeds, 1), (1, cell.clusters), (cell.seeds, cell.clusters))
    # Single precision: a grid of a thousand cells draws 10^9 numbers.
    total = np.zeros((studies, cell.metrics, cell.values, cell.seeds, cell.clusters), np.float32)
    for sd, shape in zip(PARTS[cell.parts], shapes, strict=True):
        total += np.float32(sd) * _differences(cell, studies, shape, rng)
    return np.asarray(total * cell.spreads.astype(np.float32)[:, None, None])


def _draw_one_seed(cell: SimulatedCell, studies: int, rng: np.random.Generator) -> Effects:
    """The same where each value was trained once and the base under several seeds."""
    runs = cell.values + BASE_RUNS
    seed, cluster, rest = PARTS[cell.parts]
    scores = seed * rng.standard_normal((studies, cell.metrics, runs, 1))
    scores = scores + cluster * rng.standard_normal((studies, cell.metrics, runs, cell.clusters))
    scores = scores + rest * rng.standard_normal((studies, cell.metrics, runs, cell.clusters))
    base = scores[:, :, :BASE_RUNS]
    differences = scores[:, :, BASE_RUNS:] - base.mean(axis=2, keepdims=True)
    spread = base.mean(axis=-1).var(axis=-1, ddof=1) * (1 + 1 / BASE_RUNS)
    effect = differences.mean(axis=-1)
    one = np.ones(cell.values)
    return Effects(
        effect=effect,
        seed=np.broadcast_to(spread[..., None], effect.shape),
        cluster=differences.var(axis=-1, ddof=1) / cell.clusters,
        rest=np.full(effect.shape, np.nan),
        df_seed=one * (BASE_RUNS - 1),
        df_cluster=one * (cell.clusters - 1),
        seeds=np.ones(cell.values, int),
        clusters=np.full(cell.values, cell.clusters),
    )


def _differences(
    cell: SimulatedCell, studies: int, shape: tuple[int, int], rng: np.random.Generator
) -> Array:
    """One part of value - base, (N, M, V, *shape): all values share the base."""
    own = rng.standard_normal((studies, cell.metrics, cell.values + 1, *shape), np.float32)
    if cell.correlation:
        shared = rng.standard_normal((studies, 1, cell.values + 1, *shape), np.float32)
        weights = np.sqrt([1 - cell.correlation, cell.correlation]).astype(np.float32)
        own = weights[0] * own + weights[1] * shared
    return np.asarray(own[:, :, 1:] - own[:, :, :1])


def holm(p: Array, alpha: float) -> Found:
    """Holm's procedure over all values and metrics of each study, (N, M, V)."""
    flat = p.reshape(len(p), -1)
    order = np.argsort(flat, axis=1)
    factors = flat.shape[1] - np.arange(flat.shape[1])
    passed = np.take_along_axis(flat, order, axis=1) * factors <= alpha
    passed = np.logical_and.accumulate(passed, axis=1)
    return np.asarray(
        np.take_along_axis(passed, np.argsort(order, axis=1), axis=1).reshape(p.shape)
    )


def satterthwaite(effects: Effects, alpha: float) -> Found:
    """Student's test with Satterthwaite's degrees of freedom; Holm."""
    return holm(_student(effects, effects.df), alpha)


def seeds_df(effects: Effects, alpha: float) -> Found:
    """The same with K - 1 degrees of freedom, however the variance is divided; Holm."""
    return holm(_student(effects, effects.df_seed), alpha)


def _student(effects: Effects, df: Array) -> Array:
    return np.asarray(2 * stats.t.sf(np.abs(effects.effect) / effects.standard_error, df))


def both_tests(effects: Effects, alpha: float) -> Found:
    """A test over seeds and one over clusters must both reject (Clark's F1 and F2); Holm."""
    over_seeds = 2 * stats.t.sf(np.abs(effects.effect) / np.sqrt(effects.seed), effects.df_seed)
    over_clusters = np.abs(effects.effect) / np.sqrt(effects.cluster)
    over_clusters = 2 * stats.t.sf(over_clusters, effects.df_cluster)
    return holm(np.maximum(over_seeds, over_clusters), alpha)


def separate_bounds(effects: Effects, alpha: float) -> Found:
    """Banerjee's bound of each value by itself; Bonferroni over values and metrics."""
    return _bound(effects, effects.seed, effects.df_seed, effects.effect.shape, alpha)


def pooled(effects: Effects, alpha: float) -> Found:
    """The seeds' part pooled over the values of a metric, as if it were the same in all."""
    values = len(effects)
    seed = np.broadcast_to(effects.seed.mean(axis=-1, keepdims=True), effects.seed.shape)
    # Values share the base, so that their variances hold less than V (K - 1) degrees of freedom.
    return _bound(effects, seed, effects.df_seed * (values + 1) / 2, effects.effect.shape, alpha)


def moderated(effects: Effects, alpha: float) -> Found:
    """The seeds' part drawn towards that of the other values, as limma does for genes.

    Smyth 2004, Statistical Applications in Genetics and Molecular Biology 3, article 3: the prior's
    degrees of freedom from the variance of the log variances.
    """
    if len(effects) < 2 or effects.seeds[0] == 1:
        return separate_bounds(effects, alpha)
    df = float(effects.df_seed[0])
    logs = np.log(effects.seed)
    excess = logs.var(axis=-1, ddof=1, keepdims=True) - special.polygamma(1, df / 2)
    half = np.linspace(0.05, 50, 2000)
    prior_df = 2 * np.interp(-excess, -special.polygamma(1, half), half)
    prior_df = np.where(excess <= special.polygamma(1, half[-1]), 100.0, prior_df)
    mean_log = logs.mean(axis=-1, keepdims=True) - special.digamma(df / 2) + np.log(df / 2)
    prior = np.exp(mean_log + special.digamma(prior_df / 2) - np.log(prior_df / 2))
    seed = (prior_df * prior + df * effects.seed) / (prior_df + df)
    return _bound(effects, seed, df + prior_df, effects.effect.shape, alpha)


def _bound(effects: Effects, seed: Array, df: Array, shape: tuple[int, ...], alpha: float) -> Found:
    """Banerjee's bound with a given part of the seeds, Bonferroni over values and metrics."""
    level = alpha / (shape[-2] * shape[-1]) / 2
    over_seeds = stats.t.isf(level, df) ** 2 * seed
    over_clusters = stats.t.isf(level, effects.df_cluster) ** 2 * effects.cluster
    return np.asarray(effects.effect**2 > over_seeds + over_clusters)


def largest_error(effects: Effects, alpha: float) -> Found:
    """The test of `lora_lab.statistics.family`; most of the error goes to the first metric."""
    return _by_metric(effects, alpha, PRIMARY_SHARE)


def largest_error_equal(effects: Effects, alpha: float) -> Found:
    """The same with equal parts of the error for all metrics."""
    return _by_metric(effects, alpha, 1 / effects.effect.shape[1])


def _by_metric(effects: Effects, alpha: float, first: float) -> Found:
    metrics = effects.effect.shape[1]
    rest = (1 - first) / max(metrics - 1, 1)
    found = []
    for place in range(metrics):
        share = (1.0 if metrics == 1 else first) if place == 0 else rest
        one = _metric(effects, place)
        found.append(decide(one, alpha * share).shown)
    return np.stack(found, axis=1)


def _metric(effects: Effects, place: int) -> Effects:
    """One metric of all studies, (N, V)."""
    parts = ("effect", "seed", "cluster", "rest")
    return replace(effects, **{name: getattr(effects, name)[:, place] for name in parts})


TESTS: dict[str, Test] = {
    "Satterthwaite, Holm": satterthwaite,
    "K - 1 df, Holm": seeds_df,
    "F1 and F2, Holm": both_tests,
    "pooled variance": pooled,
    "moderated variance": moderated,
    "separate bounds": separate_bounds,
    "largest error, equal parts": largest_error_equal,
    "largest error": largest_error,
}
"""The last one is the one that the report uses."""


def null_cells() -> Iterator[SimulatedCell]:
    """Every cell of the table of studies without a difference."""
    for seeds, clusters, values, parts, spread in product(SEEDS, CLUSTERS, VALUES, PARTS, SPREADS):
        if spread == "equal" or (values > 1 and seeds > 1):
            yield SimulatedCell(seeds, clusters, values, parts, spread)
    for seeds, values, parts, correlation in product((2, 3, 5, 8), (1, 3, 8), PARTS, CORRELATIONS):
        yield SimulatedCell(seeds, 12, values, parts, metrics=METRICS, correlation=correlation)


def false_studies(
    cells: Iterable[SimulatedCell], studies: int, tests: dict[str, Test] = TESTS
) -> list[dict[str, object]]:
    """Share of studies that show any difference where there is none, one row per cell.

    Args:
        cells: Which kinds of study.
        studies: How many of each.
        tests: By name.
    """
    rows = []
    for place, cell in enumerate(cells):
        effects = draw(cell, studies, np.random.default_rng([2026, place]))
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = {
                name: float(test(effects, ALPHA).any(axis=(1, 2)).mean())
                for name, test in tests.items()
            }
        rows.append({**vars(cell), "studies": studies, **shares})
    return rows


def false_rounds(studies: int, parts: str, values: int = 4) -> float:
    """Share of studies without differences that show one over the looks of `study.max_seeds`.

    Values that are shown, or that more seeds would hardly decide, get no more of them: what remains
    at a later look was chosen by what the earlier ones saw.

    Args:
        studies: How many.
        parts: What dominates, a key of PARTS.
        values: In each study.
    """
    looks = look_counts(*ROUNDS)
    rng = np.random.default_rng([2028, list(PARTS).index(parts)])
    cell = SimulatedCell(looks[-1], 8, values, parts)
    tables = _tables(cell, studies, rng)[:, 0].astype(float)  # (N, V, K, C)
    false = 0
    for table in tables:
        open_values, shown = np.arange(values), False
        for seeds, level in zip(looks, look_levels(looks), strict=True):
            found = decide(effects := crossed_effects(table[open_values, :seeds]), level)
            shown |= bool(found.shown.any())
            worth = worth_more_seeds(
                effects.effect, found.half_width, seeds, looks[-1], level, margin=0.0
            )
            open_values = open_values[worth & ~found.shown]
            if not len(open_values):
                break
        false += shown
    return false / studies


def false_early_ends(
    studies: int, parts: str, seeds: int = 3, values: int = 4, worse: bool = False
) -> float:
    """Share of studies with `study.early_end` that end or show what doesn't differ.

    Nothing differs at the end. What ends at the pause is left out of the verdicts at the end, which
    are taken from runs much like those at the pause.

    Args:
        studies: How many.
        parts: What dominates, a key of PARTS.
        seeds: Of each value.
        values: In each study.
        worse: Whether half of the values are truly worse at the pause, by as much as ends them in
            every other study: chance then decides which are left. Ending them isn't false.
    """
    rng = np.random.default_rng([2029, list(PARTS).index(parts), seeds, values])
    cell = SimulatedCell(seeds, 8, values, parts)
    last, other = (_tables(cell, studies, rng)[:, 0].astype(float) for _ in range(2))
    paused = LIKE_AT_PAUSE * last + math.sqrt(1 - LIKE_AT_PAUSE**2) * other  # (N, V, K, C)
    level = ALPHA * EARLY_SHARE
    truly = np.arange(values) < (values // 2 if worse else 0)  # (V,)
    width = np.median(decide(crossed_effects(paused), level).half_width, axis=0)
    effects = crossed_effects(paused + (truly * width)[:, None, None])
    ended = decide(effects, level).shown & (effects.effect > 0)  # (N, V)
    false = np.asarray((ended & ~truly).any(axis=1))
    for left_out in np.unique(ended, axis=0):
        studies_alike = (ended == left_out).all(axis=1)
        if not left_out.all():
            tables = crossed_effects(last[studies_alike][:, ~left_out])
            shown = decide(tables, ALPHA * (1 - EARLY_SHARE)).shown
            false[studies_alike] |= shown.any(axis=1)
    return float(false.mean())


def pocket_power(
    studies: int, seeds: Sequence[int] = SEEDS[1:], tests: dict[str, Test] = TESTS
) -> list[dict[str, object]]:
    """Share of studies that show each difference that was measured on pocket.

    The seeds' parts are those of docs/verdicts.md; the clusters' part and the rest are set to the
    values that its held-out images had. Held-out loss is the first of five metrics.
    """
    rows = []
    for count in seeds:
        effects = _draw_pocket(count, studies, np.random.default_rng([2027, count]))
        for name, test in tests.items():
            with np.errstate(divide="ignore", invalid="ignore"):
                shown = test(effects, ALPHA)[:, 0].mean(axis=0)
            found = dict(zip(map(str, POCKET_EFFECTS), map(float, shown), strict=True))
            rows.append({"seeds": count, "test": name, **found})
    return rows


def _draw_pocket(seeds: int, studies: int, rng: np.random.Generator) -> Effects:
    """Studies like those of pocket: differences in held-out loss, none in four other metrics."""
    shape = (studies, METRICS, len(POCKET_EFFECTS))
    rest = np.asarray(POCKET_REST_SDS)[:, None, None]
    clusters = np.asarray(POCKET_CLUSTER_SDS)[:, None, None]
    # The deviation between the seeds' means, as measured, holds a share of the rest.
    own = np.maximum(np.square(POCKET_SEED_SDS) - np.square(POCKET_REST_SDS) / POCKET_CLUSTERS, 0)
    differences = (
        np.sqrt(own)[:, None, None] * rng.standard_normal((*shape, seeds, 1))
        + clusters * rng.standard_normal((*shape, 1, POCKET_CLUSTERS))
        + rest * rng.standard_normal((*shape, seeds, POCKET_CLUSTERS))
    )
    differences[:, 0] += np.asarray(POCKET_EFFECTS)[:, None, None]
    return crossed_effects(differences)


def worst(rows: Sequence[dict[str, object]], test: str, **where: object) -> float:
    """The largest share of false studies among the rows with these settings."""
    matching = [row for row in rows if all(row[key] == value for key, value in where.items())]
    return max(float(str(row[test])) for row in matching)


def allowed(studies: int) -> float:
    """5 % and three standard errors of a simulated share."""
    return float(ALPHA + 3 * np.sqrt(ALPHA * (1 - ALPHA) / studies))


def summary(rows: Sequence[dict[str, object]], power: Sequence[dict[str, object]]) -> str:
    """Two Markdown tables: the worst cells by number of seeds, and what is seen on pocket."""
    seeds = sorted({int(str(row["seeds"])) for row in rows})
    lines = ["| test | " + " | ".join(f"{count} seeds" for count in seeds) + " |"]
    lines.append("| --- |" + " --- |" * len(seeds))
    for test in TESTS:
        shares = [f"{100 * worst(rows, test, seeds=count):.1f}" for count in seeds]
        lines.append(f"| {test} | " + " | ".join(shares) + " |")
    effects = [f"{effect:+.2f} %" for effect in POCKET_EFFECTS]
    lines += ["", "| test | seeds | " + " | ".join(effects) + " |"]
    lines.append("| --- | --- |" + " --- |" * len(effects))
    for row in power:
        shares = [f"{100 * float(str(row[str(effect)])):.0f}" for effect in POCKET_EFFECTS]
        lines.append(f"| {row['test']} | {row['seeds']} | " + " | ".join(shares) + " |")
    return "\n".join(lines) + "\n"


def figure(rows: Sequence[dict[str, object]], power: Sequence[dict[str, object]]) -> bytes:
    """Left: the worst share of false studies by seeds. Right: what is seen of 1 % on pocket."""
    with drawing(LIGHT, WIDE):
        canvas, (left, right) = panels(WIDE, 2, margin=2.3)
        seeds = sorted({int(str(row["seeds"])) for row in rows})
        for place, test in enumerate(TESTS):
            chosen = place == len(TESTS) - 1
            own = [row for row in power if row["test"] == test]
            style: dict[str, Any] = {
                "marker": MARKS[place],
                "color": LIGHT.base if chosen else LIGHT.series[place],
                "linewidth": 2.6 if chosen else 1.2,
            }
            left.plot(seeds, [100 * worst(rows, test, seeds=one) for one in seeds], **style)
            seen = [100 * float(str(row[SHOWN_EFFECT])) for row in own]
            right.plot([int(str(row["seeds"])) for row in own], seen, label=test, **style)
        left.axhline(100 * ALPHA, color=LIGHT.ink, linestyle="--", linewidth=1)
        left.set_yscale("log")
        left.set_yticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
        left.yaxis.set_minor_formatter(NullFormatter())
        tidy(left, LIGHT, "False studies in the worst cell, %", "seeds")
        right.axhline(80, color=LIGHT.ink, linestyle="--", linewidth=1)
        right.set_ylim(0, 102)
        tidy(right, LIGHT, f"Studies that show +{SHOWN_EFFECT} % on pocket, %", "seeds")
        right.legend(fontsize=8.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        file = io.BytesIO()
        canvas.savefig(file, format="webp")
    return file.getvalue()


def main(arguments: list[str] | None = None) -> int:
    """Simulate, print the tables and write them with every cell and the figure.

    Returns:
        0 when the report's own test holds its error rate in every cell, 1 when not.
    """
    parser = OneLineParser(prog="python -m lora_lab.study.simulate", description=__doc__)
    parser.add_argument("--studies", type=int, default=STUDIES, help="of each cell, at least 100")
    parser.add_argument("--out", type=path_of, default=Path("runs/simulated-verdicts"))
    parser.add_argument(DEBUG, action="store_true", help="show where an unforeseen error arose")
    options = parser.parse_args(arguments)
    if options.studies < 100:
        parser.error(f"--studies must be >= 100, got {options.studies}")
    rows = false_studies(null_cells(), options.studies)
    power = pocket_power(options.studies)
    out = make_folder(options.out)
    write_text(out / "false_studies.csv", _csv(rows))
    write_text(out / "seen_on_pocket.csv", _csv(power))
    write_text(out / "summary.md", summary(rows, power))
    with atomic_path(out / "verdict_simulation.webp") as file:
        file.write_bytes(figure(rows, power))
    chosen = list(TESTS)[-1]
    highest = max(float(str(row[chosen])) for row in rows)
    above = sum(float(str(row[chosen])) > allowed(options.studies) for row in rows)
    sys.stdout.write(summary(rows, power))
    for parts in PARTS:
        share = false_rounds(min(options.studies, MOST_ROUNDS), parts)
        sys.stdout.write(f"3, 5 and 8 seeds, {parts}: {100 * share:.1f} % false studies\n")
    for parts, worse in product(PARTS, (False, True)):
        share = false_early_ends(options.studies, parts, worse=worse)
        told = "half of the values worse at the pause" if worse else "nothing differs"
        sys.stdout.write(f"early ends, {told}, {parts}: {100 * share:.1f} % false studies\n")
    sys.stdout.write(
        f"\n{chosen}: {len(rows)} cells of {options.studies} studies, worst {100 * highest:.1f} %, "
        f"{above} above {100 * allowed(options.studies):.1f} % (5 % and 3 standard errors)\n{out}\n"
    )
    return 1 if above > CELLS_BY_CHANCE * len(rows) else 0


def _csv(rows: Sequence[dict[str, object]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(run_plain(main))
