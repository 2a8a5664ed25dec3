"""Writes the comparisons of a folder of kohya's logs: a report each, and a page over them."""

import csv
import io
import math
import re
import shlex
from dataclasses import replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lora_lab import __version__
from lora_lab.clock import duration
from lora_lab.files import make_folder, write_text
from lora_lab.study.judge.run_measures import measure
from lora_lab.study.judge.verdict import Study, judge
from lora_lab.study.kohya_logs.compare_logs import (
    Comparison,
    comparisons,
    growth_findings,
    start_difference,
)
from lora_lab.study.kohya_logs.read_logs import KohyaRun, Logs, load_logs
from lora_lab.study.report.build import BuiltReport, write_report
from lora_lab.study.report.comparison import FORMULA_STARTS
from lora_lab.study.report.headline import Headline
from lora_lab.study.report.page import TEMPLATES, style_hash
from lora_lab.study.report.spelling import listed, plain, signed

MOST = 60
"""Longest name of a folder."""
NO_VERDICT = (
    "Which value is better can't be told from kohya's logs: they hold no held-out loss and no "
    "images."
)


def build_kohya_report(folder: Path, out: Path) -> BuiltReport:
    """Read a folder of kohya's logs and write what can be said of it.

    With one comparison in the folder its report is `index.html`; with several, `index.html` is a
    page over them and each has a folder of its own. `runs.csv` holds the figures of every run.

    Args:
        folder: A `logging_dir` of kohya's trainer, or any folder above such.
        out: Where the report goes.

    Returns:
        The page, index.html, with its first sentence.

    Raises:
        ConfigError: No folder, or no logs of kohya's trainer in it.
        LabError: The report can't be written.
    """
    logs = load_logs(folder)
    found = comparisons(logs)
    make_folder(out)
    write_text(out / "runs.csv", runs_text(found))
    if len(found) == 1:
        return _write_one(found[0], out, folder)
    links = {one.name: _folder_name(one.name, number) for number, one in enumerate(found, 1)}
    for one in found:
        _write_one(one, out / links[one.name], folder)
    page = out / "index.html"
    write_text(page, _overview(logs, found, links))
    return BuiltReport(page, f"{len(found)} comparisons were found, with a report each.")


def _write_one(one: Comparison, out: Path, folder: Path) -> BuiltReport:
    words = (
        f"python -m lora_lab.study --kohya {shlex.quote(folder.name)} --out {shlex.quote(out.name)}"
    )
    study = judge(replace(one.sweep, command=words))
    return write_report(study, words_of(one, study), out, with_images=False)


def words_of(one: Comparison, study: Study) -> Headline:
    """The first sentences: what the logs can and can't show, then what they show by themselves."""
    paired = _paired_tails(study)
    return Headline(_first_sentence(one, paired), (*one.findings, *_told(paired, one), NO_VERDICT))


def _first_sentence(one: Comparison, paired: dict[str, float]) -> str:
    """The most that these logs show: nothing learned, other inputs, paired loss, or d."""
    stayed = [run.label for run in one.runs if run.growth.stayed]
    if stayed:
        return f"{listed(stayed, 3)} learned nothing: d never left its start."
    bases = [run for run in one.runs if run.place.value == one.base.place.value]
    if (share := start_difference(bases)) is not None:
        return (
            f"Your base runs differ by {share * 100:.1f} % before anything was learned: they read "
            "other inputs."
        )
    if paired:
        low, high = min(paired, key=paired.__getitem__), max(paired, key=paired.__getitem__)
        told = [f"{label} {signed(paired[label], 2)} %" for label in dict.fromkeys((low, high))]
        return f"Training loss under the base's own noise: {listed(told)}."
    ends = [run.growth.last for run in one.runs if math.isfinite(run.growth.last)]
    if ends:
        return f"d ends between {plain(min(ends))} and {plain(max(ends))}; no losses can be paired."
    return "These runs share no noise, so their losses can't be compared."


def _paired_tails(study: Study) -> dict[str, float]:
    """Value -> training loss against the base in %, of values with its noise and inputs."""
    base = study.base.measures.tail_loss if study.base else math.nan
    return {
        judged.label: judged.paired.tail / base * 100
        for judged in study.values
        if judged.paired is not None and judged.paired.unit == "step" and base
    }


def _told(paired: dict[str, float], one: Comparison) -> list[str]:
    """What training loss shows of the values that share noise and inputs with the base."""
    if not paired:
        return []
    told = [f"{label} {signed(share, 2)} %" for label, share in paired.items()]
    return [
        f"Training loss against {one.base.label} under the same noise and inputs, last fifth of "
        f"the steps: {listed(told, 12)}. That is how well the training images are "
        "learned, not which value is better."
    ]


def _folder_name(name: str, number: int) -> str:
    plain_name = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.").lower()[:MOST]
    return f"{number:02d}-{plain_name}" if plain_name else f"{number:02d}"


COLUMNS = (
    "comparison",
    "run",
    "value",
    "base",
    "status",
    "noise",
    "inputs",
    "steps",
    "epochs",
    "d_final",
    "growth_factor",
    "growth_until_step",
    "peak_dlr",
    "peak_dlr_step",
    "mean_loss",
    "tail_loss",
    "first_loss",
    "seconds",
    "notes",
)


def runs_text(found: list[Comparison]) -> str:
    """runs.csv: one row per run, with what its log shows."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for one in found:
        for run in one.runs:
            row = _figures(one, run)
            writer.writerow({key: _cell(value) for key, value in row.items()})
    return buffer.getvalue()


def _figures(one: Comparison, run: KohyaRun) -> dict[str, str | float]:
    figures = measure(next(item for item in one.sweep.runs if item.name == run.label))
    loss = run.curve.loss
    return {
        "comparison": one.name,
        "run": run.label,
        "value": run.place.value,
        "base": "yes" if run.place.value == one.base.place.value else "no",
        "status": run.status,
        "noise": run.member.stream,
        "inputs": run.member.inputs,
        "steps": figures.steps,
        "epochs": run.series.epochs,
        "d_final": run.growth.last,
        "growth_factor": run.growth.factor,
        "growth_until_step": run.growth.end or math.nan,
        "peak_dlr": figures.peak_dlr_unet,
        "peak_dlr_step": figures.peak_dlr_step,
        "mean_loss": float(loss.mean()) if len(loss) else math.nan,
        "tail_loss": figures.tail_loss,
        "first_loss": float(loss[0]) if len(loss) else math.nan,
        "seconds": run.series.seconds,
        "notes": "; ".join(run.notes),
    }


def _cell(value: str | float) -> str:
    """One cell; text that a spreadsheet would run as a formula gets a quote in front."""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA_STARTS) else value
    return "" if math.isnan(value) else f"{value:.8g}"


def _overview(logs: Logs, found: list[Comparison], links: dict[str, str]) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    every = [run for one in found for run in one.runs]
    return environment.get_template("kohya.html.j2").render(
        version=__version__,
        style=Markup(style),
        style_hash=style_hash(style),
        name=logs.folder.resolve().name,
        findings=[*_over_all(logs, found), *growth_findings(tuple(every))],
        left_out=logs.left_out,
        comparisons=[
            {
                "name": one.name,
                "link": f"{links[one.name]}/index.html",
                "findings": one.findings,
                "rows": [_shown(one, run) for run in one.runs],
            }
            for one in found
        ],
    )


def _over_all(logs: Logs, found: list[Comparison]) -> list[str]:
    """What holds over the comparisons; each sentence about the base once."""
    kinds = sorted({(run.member.stream, run.member.inputs) for run in logs.runs})
    streams = len({stream for stream, _ in kinds})
    mixed = sorted({stream for stream, letter in kinds if letter != "A"})
    sentences = [
        f"{len(logs.runs)} runs in {len(found)} comparisons, {streams} different streams of "
        "noise. Only losses of one stream can be compared step by step."
    ]
    if mixed:
        sentences.append(
            "Some runs of one stream differ in their loss from step 1 on, before anything was "
            "learned: their inputs differed. Runs of other inputs (the letter behind the number of "
            "the noise) can't be compared unpaired, whatever their setting."
        )
    about_bases = (text for one in found for text in one.findings if text.startswith("The base"))
    return [
        *sentences,
        *_recurring(logs),
        *_input_groups(logs),
        *list(dict.fromkeys(about_bases))[:1],
    ]


def _recurring(logs: Logs) -> list[str]:
    """Logs that stand in several comparisons, said once for all of them."""
    places: dict[tuple[str, ...], list[KohyaRun]] = {}
    for run in logs.runs:
        places.setdefault(tuple(path.name for path in run.place.files), []).append(run)
    by_count: dict[int, list[str]] = {}
    for runs in places.values():
        count = len({run.place.group for run in runs})
        if count > 1:
            by_count.setdefault(count, []).append(runs[0].label)
    return [
        f"The {'log' if len(labels) == 1 else 'logs'} of {listed(labels, 6)} "
        f"{'stands' if len(labels) == 1 else 'stand'} in {count} comparisons: copies, not runs of "
        "their own."
        for count, labels in sorted(by_count.items(), reverse=True)
    ]


def _input_groups(logs: Logs) -> list[str]:
    """How the runs of the largest stream of noise split by their inputs."""
    logs_of: dict[int, dict[str, set[tuple[str, ...]]]] = {}
    for run in logs.runs:
        kinds = logs_of.setdefault(run.member.stream, {})
        kinds.setdefault(run.member.inputs, set()).add(tuple(p.name for p in run.place.files))
    largest = max(logs_of.values(), key=lambda kinds: sum(map(len, kinds.values())))
    if len(largest) < 2:
        return []
    told = [f"{letter} with {len(files)} logs" for letter, files in sorted(largest.items())]
    return [f"The runs of the most common noise split into groups of inputs: {listed(told)}."]


def _shown(one: Comparison, run: KohyaRun) -> list[str]:
    figures = _figures(one, run)
    return [
        run.label + (" (base)" if figures["base"] == "yes" else ""),
        f"{run.member.stream}{run.member.inputs}",
        str(figures["steps"]),
        plain(run.growth.last),
        "–" if math.isnan(run.growth.factor) else f"{run.growth.factor:.4g}",
        plain(float(figures["peak_dlr"])),
        plain(float(figures["mean_loss"])),
        plain(float(figures["tail_loss"])),
        duration(run.series.seconds),
        run.status,
    ]
