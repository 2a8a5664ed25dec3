"""Each comparison of a folder of kohya's logs as a sweep, with what the logs show by themselves."""

import math
from collections import Counter
from dataclasses import dataclass

from lora_lab.study.kohya_logs.read_logs import KohyaRun, Logs, as_run, base_labels, natural
from lora_lab.study.kohya_logs.run_settings import differing
from lora_lab.study.kohya_logs.streams import (
    correlation,
    is_reordered,
    is_reweighted,
    mean_ratio,
    start_ratio,
)
from lora_lab.study.read.load import Sweep
from lora_lab.study.report.spelling import listed

SILENT = ("network.", "optimizer.", "schedule.", "epochs", "trainer.", "kohya.optimizer")
"""Settings that can't change a loss before the first update; a LoRA begins as no change at all."""
FEW = 8
"""So many runs are named one by one."""


@dataclass(frozen=True)
class Comparison:
    """Runs that lie in one folder."""

    name: str
    """Its folders, as one line."""
    sweep: Sweep
    runs: tuple[KohyaRun, ...]
    """In the order of the sweep."""
    base: KohyaRun
    """The run that the others are compared with."""
    findings: tuple[str, ...]


def comparisons(logs: Logs) -> list[Comparison]:
    """Sort the runs of a folder into comparisons, in the order of their names."""
    bases = base_labels(logs)
    return [
        _comparison(logs, group, value)
        for group, value in sorted(bases.items(), key=lambda item: natural("/".join(item[0])))
    ]


def _comparison(logs: Logs, group: tuple[str, ...], base_value: str) -> Comparison:
    runs = [run for run in logs.runs if run.place.group == group]
    keys = differing([run.settings for run in runs])
    silent = all(key.startswith(SILENT) for key in keys)
    base = _reference(runs, base_value)
    bases = [run for run in runs if run.place.value == base_value]
    others = [run for run in runs if run.place.value != base_value]
    bases.sort(key=lambda run: (run is not base, natural(run.label)))
    others.sort(key=lambda run: natural(run.label))
    name = " / ".join(group) or logs.folder.resolve().name
    ordered = (*bases, *others)
    sweep = Sweep(
        folder=logs.folder,
        parameter=",".join(keys) if 0 < len(keys) <= 3 else name,
        values=tuple(dict.fromkeys(run.place.value for run in others)),
        base_value=base_value,
        overrides=(),
        runs=tuple(as_run(run, run in bases, base) for run in ordered),
        notes=logs.left_out,
    )
    found = (
        *_bases(bases),
        *_inputs(ordered, base, silent),
        *_lengths(ordered, base),
        *_streams(ordered, base),
    )
    return Comparison(name, sweep, ordered, base, (*found, *growth_findings(ordered)))


def _reference(runs: list[KohyaRun], base_value: str) -> KohyaRun:
    """The complete base run that most values share noise and inputs with; else the earliest."""
    kin = Counter((run.member.stream, run.member.inputs) for run in runs)
    bases = [run for run in runs if run.place.value == base_value]
    return min(
        bases,
        key=lambda run: (
            run.status != "complete",
            -kin[(run.member.stream, run.member.inputs)],
            run.series.started,
        ),
    )


def _share(ratio: float) -> str:
    return f"{abs(ratio - 1) * 100:.1f} % {'lower' if ratio < 1 else 'higher'}"


def start_difference(bases: list[KohyaRun]) -> float | None:
    """By which share two runs of the base differ in step 1 under the same noise; None: they don't.

    The largest of such differences between the earliest run of the base and the others.
    """
    first = min(bases, key=lambda run: run.series.started)
    shares = [
        abs(start_ratio(run.curve, first.curve) - 1)
        for run in bases
        if run.member.stream == first.member.stream and run.member.inputs != first.member.inputs
    ]
    return max(shares, default=None)


def _bases(bases: list[KohyaRun]) -> list[str]:
    """How runs of one value differ before anything was learned."""
    found = []
    first = min(bases, key=lambda run: run.series.started)
    for run in bases:
        close = correlation(run.curve, first.curve)
        ratio = start_ratio(run.curve, first.curve)
        if run is first or math.isnan(close):
            continue
        if run.member.stream != first.member.stream:
            found.append(
                f"The base was trained as {first.label} and as {run.label} with other noise: their "
                f"losses correlate step by step with {close:.3f} only."
            )
        elif run.member.inputs != first.member.inputs:
            found.append(
                f"The base runs {first.label} and {run.label} differ although their settings "
                f"don't: the loss of {run.label} is {_share(ratio)} at step 1, before anything was "
                f"learned, and {_share(mean_ratio(run.curve, first.curve))} over the whole run, "
                f"under the same noise (correlation step by step {close:.4f}). No setting and no "
                "optimizer does that: the inputs were others, such as latents from another VAE or "
                "a stale cache."
            )
        else:
            found.append(
                f"The base runs {first.label} and {run.label} had the same inputs and the same "
                f"noise (correlation step by step {close:.4f}); their mean losses differ by "
                f"{abs(mean_ratio(run.curve, first.curve) - 1) * 100:.2f} %."
            )
    return found


def _inputs(runs: tuple[KohyaRun, ...], base: KohyaRun, silent: bool) -> list[str]:
    """Which runs of the base's noise started from which loss."""
    kin = [run for run in runs if run.member.stream == base.member.stream]
    letters = sorted({run.member.inputs for run in kin})
    if len(letters) < 2:
        return []
    sets = [
        f"{letter} ({_named([run.label for run in kin if run.member.inputs == letter])})"
        for letter in letters
    ]
    if silent:
        return [
            f"{len(letters)} sets of inputs are mixed here: {' and '.join(sets)}. Values of one "
            "can't be compared with those of the other: the inputs differ by more than most "
            f"settings do. The base here is {base.label}; runs of other inputs are not ranked."
        ]
    return [
        f"The first losses differ under the same noise: {' and '.join(sets)}. The setting itself "
        "may change the first loss, other inputs may, and the logs can't tell which. Only runs "
        f"that start like {base.label} are compared with it."
    ]


def _lengths(runs: tuple[KohyaRun, ...], base: KohyaRun) -> list[str]:
    """Which complete runs are longer or shorter than the base."""
    if base.status != "complete" or not len(base.curve.steps):
        return []
    told = [
        f"{run.label} ({run.curve.steps[-1]})"
        for run in runs
        if run.status == "complete" and run.curve.steps[-1] != base.curve.steps[-1]
    ]
    if not told:
        return []
    return [
        f"Other lengths than {base.label} with its {base.curve.steps[-1]} steps: {_named(told)}. "
        "At the same step one run is nearly done and the other is not, so they are not compared."
    ]


def _streams(runs: tuple[KohyaRun, ...], base: KohyaRun) -> list[str]:
    """Which runs don't show the base's noise step by step, and how far they are related to it."""
    strangers = [run for run in runs if run.member.stream != base.member.stream]
    reweighted = [run for run in strangers if is_reweighted(run.curve, base.curve)]
    rest = [run for run in strangers if run not in reweighted]
    reordered = [run for run in rest if is_reordered(run.curve, base.curve)]
    others = [run for run in rest if run not in reordered]
    found = []
    if reweighted:
        found.append(
            f"{_named([run.label for run in reweighted])} saw the noise of {base.label} with other "
            "weights: at every one of the first steps the loss lies on the same side. A weighted "
            "loss is another quantity, so they are not ranked by it."
        )
    if reordered:
        told = [f"{run.label} ({correlation(run.curve, base.curve):.2f})" for run in reordered]
        found.append(
            f"{_named(told)} saw the noise of {base.label} with the images in another order (in "
            "brackets: how the losses correlate step by step; 1 is the same order). Their losses "
            "can be compared over the whole run, not step by step; they are not ranked."
        )
    if others:
        told = [f"{run.label} ({correlation(run.curve, base.curve):.2f})" for run in others]
        verb = "doesn't" if len(others) == 1 else "don't"
        found.append(
            f"{_named(told)} {verb} share the noise of {base.label} (in brackets: how the losses "
            "correlate step by step; 1 is the same noise). Their losses can't be compared with it, "
            "and they are not ranked."
        )
    return found


def growth_findings(runs: tuple[KohyaRun, ...]) -> list[str]:
    """How d grew, the runs of one rate together."""
    by_rate: dict[str, list[KohyaRun]] = {}
    free, stayed = [], [run for run in runs if run.growth.stayed]
    for run in runs:
        growth = run.growth
        if growth.stayed:
            continue
        if math.isfinite(growth.factor):
            by_rate.setdefault(f"{growth.factor:.3f}".rstrip("0"), []).append(run)
        elif growth.last > growth.first:
            free.append(run)
    found = []
    if stayed:
        starts = sorted({f"{run.growth.first:.3g}" for run in stayed})
        found.append(
            f"d never left {listed(starts)}, so nothing was learned: "
            f"{_named([run.label for run in stayed])}."
        )
    for rate, held in sorted(by_rate.items()):
        first = held[0].growth
        ends = [run.growth.end for run in held]
        until = f"{min(ends)} to {max(ends)}" if min(ends) < max(ends) else str(ends[0])
        found.append(
            f"d grows as {rate}^k, by the factor {rate} in each step, from {first.first:.3g} until "
            f"it saturates or the run ends (step {until}): {_named([run.label for run in held])}."
        )
    if free:
        largest = max(run.growth.largest for run in free)
        found.append(
            f"d grows without a limit, by up to the factor {largest:.2f} in a step: "
            f"{_named([run.label for run in free])}."
        )
    return found


def _named(labels: list[str]) -> str:
    unique = list(dict.fromkeys(labels))
    if len(unique) > FEW:
        return f"{', '.join(unique[:FEW])} and {len(unique) - FEW} more"
    return listed(unique)
