"""comparison.csv: one row per run, every figure; verdicts.csv: one row per value and metric."""

import csv
import io
import math
from pathlib import Path

from lora_lab.config.metrics import BY_NAME, METRICS, Against
from lora_lab.files import write_text
from lora_lab.study.judge.verdict import Judged, Study

FIGURES = (
    *("verdict", "mean", "base_mean", "effect", "low", "high", "p", "level"),
    *("detectable", "seeds_needed", "more_seeds", "more_detectable"),
    *("clusters", "seeds", "reason", "remark"),
)
"""Fields of a MetricResult that stand in the table."""
WAY = ("floor", "ceiling", "way")
"""Those of a metric of identity."""
CHOSEN = [m.name for m in METRICS if m.judged and m.against not in (None, Against.BASE)]
"""Metrics of the chosen checkpoint that stand in the table."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def write_comparison(study: Study, path: Path) -> None:
    """Write the table for programs, and verdicts.csv beside it.

    Raises:
        LabError: The file can't be written.
    """
    write_text(path, comparison_text(study))
    write_text(path.with_name("verdicts.csv"), verdicts_text(study))


def comparison_text(study: Study) -> str:
    """The table as CSV; empty cells where nothing was measured."""
    timesteps = sorted({t for one in study.judged for t in one.measures.held_out_by_timestep})
    rows = [
        _row(one, study, timesteps) | _metrics(one, study) | _choice(one) | _costs(one)
        for one in study.judged
    ]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return buffer.getvalue()


VERDICTS = (
    *("parameter", "value", "metric", "verdict", "effect", "low", "high", "base_mean"),
    *("detectable", "seeds", "clusters", "reason"),
)
"""Columns of verdicts.csv."""


def verdicts_text(study: Study) -> str:
    """Every verdict as CSV; empty cells where nothing could be told."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, VERDICTS, lineterminator="\n")
    writer.writeheader()
    for one in study.values:
        for result in one.results:
            if not BY_NAME[result.metric].judged:
                continue
            reasons = [one.reason or result.reason, result.remark]
            row: dict[str, str | float | None] = {
                name: getattr(result, name) for name in VERDICTS[1:-1]
            }
            row |= {
                "parameter": study.sweep.parameter,
                "verdict": result.verdict.value,
                "reason": "; ".join(filter(None, reasons)),
            }
            writer.writerow({name: _cell(row[name]) for name in VERDICTS})
    return buffer.getvalue()


def _row(one: Judged, study: Study, timesteps: list[int]) -> dict[str, str | float | None]:
    run, figures, paired = one.run, one.measures, one.paired
    by_timestep = figures.held_out_by_timestep
    return {
        "parameter": study.sweep.parameter,
        "value": run.value,
        "run": run.name,
        "role": "base" if run.is_base else "value",
        "seed": run.seed,
        "status": run.status,
        "reused": "yes" if run.reused else "no",
        "verdict": one.verdict.value,
        "reason": one.reason,
        "held_out_loss": figures.held_out,
        "floor_sd": study.floor.sd,
        "floor_seeds": study.floor.seeds,
        **{f"held_out_loss_t{t}": by_timestep.get(t, math.nan) for t in timesteps},
        "held_out_best": figures.held_out_best,
        "held_out_best_step": figures.held_out_best_step,
        "training_images_loss": figures.train_images,
        "gap": figures.gap,
        "final_loss": figures.final_loss,
        "tail_loss": figures.tail_loss,
        "paired_difference": paired.mean if paired else math.nan,
        "paired_difference_tail": paired.tail if paired else math.nan,
        "paired_by": paired.unit if paired else "",
        "training_floor_sd": study.floor.training_sd,
        "d_final": figures.d_final,
        "peak_dlr_unet": figures.peak_dlr_unet,
        "peak_dlr_text_encoder": figures.peak_dlr_text_encoder,
        "peak_dlr_step": figures.peak_dlr_step,
    }


def _metrics(one: Judged, study: Study) -> dict[str, str | float | None]:
    """Every number of every metric: identity_clip_mean, identity_clip_difference ..."""
    cells: dict[str, str | float | None] = {}
    for metric in study.metrics:
        result = one.result(metric.name)
        for figure in (*FIGURES, *(WAY if metric.against is Against.HELD_OUT_IMAGES else ())):
            cells[f"{metric.name}_{figure}"] = getattr(result, figure) if result else None
    return cells


def _choice(one: Judged) -> dict[str, str | float | None]:
    """The checkpoint to use, chosen on other prompts than it is reported on."""
    choice = one.run.choice
    figures = {metric.name: choice.chosen.get(metric.name) for metric in METRICS} if choice else {}
    return {
        "chosen_step": choice.step if choice else None,
        "chosen_weight": choice.weight if choice else None,
        **{f"chosen_{m}": figures.get(m) for m in CHOSEN},
    }


def _costs(one: Judged) -> dict[str, str | float | None]:
    run, figures = one.run, one.measures
    return {
        "steps": figures.steps,
        "stack": figures.stack,
        "seconds": figures.seconds,
        "seconds_training": figures.seconds_training,
        "seconds_held_out": figures.seconds_held_out,
        "seconds_sampling": figures.seconds_sampling,
        "step_median": figures.step_median,
        "step_p95": figures.step_p95,
        "peak_memory_process": figures.memory_process,
        "peak_memory_device": figures.memory_device,
        "lora_bytes": figures.lora_bytes,
        "error": run.error,
        "notes": "; ".join(run.notes),
    }


def _cell(value: str | float | None) -> str:
    """One cell; text that a spreadsheet would run as a formula gets a quote in front."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA_STARTS) and not _is_number(value) else value
    return f"{value:.10g}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
