"""`study.early_end`: which values are clearly worse where their runs have paused.

The runs are judged at that step as a study of its own, value and base in pairs under the same seed,
with a small part of the error rate: what it spends is taken from the verdicts at the end, so that
all together keep theirs, whatever the two have in common. Clearly worse is a value whose whole
interval lies beyond the margin within which a value is as good.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lora_lab.config.metrics import BY_NAME
from lora_lab.statistics.family import EARLY_SHARE
from lora_lab.study.judge.metric_results import Verdict
from lora_lab.study.judge.verdict import JUDGED_BY, judge
from lora_lab.study.read.held_out_file import read_image_losses
from lora_lab.study.read.load import Run, Sweep


@dataclass(frozen=True)
class EarlyEnd:
    """Why a value goes no further."""

    step: int
    """Where it was judged."""
    worse_by: float
    """How much worse it is, as a share of the base's mean at that step."""

    @property
    def words(self) -> str:
        """As logs, run.json and the report tell it."""
        share = f"{self.worse_by * 100:.2g}" if self.worse_by < 1 else f"{self.worse_by * 100:.0f}"
        metric = BY_NAME[JUDGED_BY].word
        return f"ended early at step {self.step}: worse by {share} % in {metric}"


def worse_values(sweep: Sweep) -> Mapping[str, EarlyEnd]:
    """The values that are clearly worse than the base at the step where they have paused.

    A value whose runs have other steps than the base's, or of which one is complete, is not judged.

    Args:
        sweep: Its runs, paused or beyond.
    """
    found: dict[str, EarlyEnd] = {}
    steps = {run.record.paused_at for run in sweep.runs if run.record.paused_at and not run.is_base}
    for step in sorted(steps):
        study = judge(_at(sweep, step))
        for one in study.values:
            result = one.result(JUDGED_BY)
            if result is None or result.verdict is not Verdict.WORSE or not result.base_mean:
                continue
            if result.share(result.low) > study.margin:
                found[one.run.value] = EarlyEnd(step, result.relative)
    return found


def _at(sweep: Sweep, step: int) -> Sweep:
    """The sweep as it was at a step, as if that were its end."""
    finished = {value for value, runs in sweep.value_runs.items() if any(r.complete for r in runs)}
    paused = [
        run
        for run in sweep.runs
        if not run.is_base and run.value not in finished and run.record.paused_at == step
    ]
    lengths = {run.record.total_steps for run in paused} - {0}
    base = [run for run in sweep.base_runs if _length(run) in lengths]
    paused = [run for run in paused if run.record.total_steps in map(_length, base)]
    runs = [early for run in (*base, *paused) if (early := _run_at(run, step)) is not None]
    return replace(sweep, runs=tuple(runs), max_seeds=None, rounds=(), error_share=EARLY_SHARE)


def _length(run: Run) -> int:
    """Steps of a whole run; 0 where they can't be told."""
    if run.record.total_steps or not run.complete or not len(run.metrics.steps):
        return run.record.total_steps
    return int(run.metrics.steps[-1])


def _run_at(run: Run, step: int) -> Run | None:
    """A run with its held-out loss at a step as its only score; None where it wasn't measured."""
    losses = read_image_losses(run.folder / "held_out.csv", until=step)
    if losses.last != step or not losses.units:
        return None
    return replace(
        run,
        status="complete",
        ended_early="",
        image_losses=losses,
        scores={JUDGED_BY: losses.units},
        anchors={},
    )
