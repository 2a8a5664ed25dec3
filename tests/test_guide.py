"""The guide's published logs and settings, where they are at hand (LORA_LAB_GUIDE names them)."""

import csv
import json
import os
from functools import cache
from pathlib import Path

import pytest

from lora_lab.kohya.arguments import Arguments, read_arguments
from lora_lab.kohya.gui import from_gui
from lora_lab.kohya.translation import translate
from lora_lab.study.kohya_logs.compare_logs import comparisons
from lora_lab.study.kohya_logs.read_logs import load_logs

ROOT = Path(__file__).resolve().parents[1]
GUIDE = Path(os.environ.get("LORA_LAB_GUIDE", ROOT.parent / "shared" / "guide"))
if not (GUIDE / "studies.json").is_file():
    pytest.skip(f"{GUIDE} is not there", allow_module_level=True)


@cache
def found():
    """The comparisons of all published logs by name."""
    return {one.name: one for one in comparisons(load_logs(GUIDE / "raw"))}


@cache
def summary():
    """The rows of runs_summary.csv by study, family and run."""
    with (GUIDE / "runs_summary.csv").open(encoding="utf-8") as file:
        return {(row["study"], row["family"], row["run"]): row for row in csv.DictReader(file)}


def published():
    """Each published run with its row of the summary."""
    for name, one in found().items():
        study, _, family = name.partition(" / ")
        for run in one.runs:
            rows = [
                row
                for (s, f, label), row in summary().items()
                if s == study and label == run.label and family in ("", f)
            ]
            yield run, rows[0]


def test_every_run_is_found_with_its_d_steps_and_losses():
    runs = list(published())
    assert len(runs) == 43
    for run, row in runs:
        assert run.growth.last == pytest.approx(float(row["d_final"]), rel=1e-4), run.label
        assert run.series.metrics.steps[-1] == int(row["last_step"])
        assert run.curve.loss.mean() == pytest.approx(float(row["mean_loss"]), rel=1e-3)
        assert run.series.epochs == int(row["n_epochs"]) and run.status == "complete"


def test_the_two_bases_differ_by_five_percent_from_step_1_on_under_the_same_noise():
    one = found()["Growth Rate"]
    text = next(text for text in one.findings if text.startswith("The base runs"))
    assert "1.02_13.08 and 1.02_17.08" in text and "5.2 % lower at step 1" in text
    assert "0.9996" in text


def test_the_eras_are_those_of_the_summary_wherever_the_noise_is_the_bases():
    base = found()["Growth Rate"].base.member.stream
    told = {
        (run.label, row["latent_era"], run.member.inputs)
        for run, row in published()
        if run.member.stream == base
    }
    assert len(told) > 15 and all(era == letter for _, era, letter in told)


def test_values_of_the_other_era_are_not_ranked():
    runs = {run.name: run for run in found()["Network Alpha / GR INF"].sweep.runs}
    base = runs["1"].record.fingerprints
    assert all(runs[v].record.fingerprints["inputs"] != base["inputs"] for v in ("32", "192"))


@pytest.mark.parametrize(("label", "factor"), [("1.02_13.08", 1.02), ("1.06", 1.06), ("1.10", 1.1)])
def test_d_grows_as_the_growth_rate_says(label, factor):
    run = next(run for run in found()["Growth Rate"].runs if run.label == label)
    assert run.growth.factor == pytest.approx(factor, abs=1e-4)
    assert 80 < run.growth.end < 400


def test_without_a_growth_rate_there_is_no_factor():
    run = next(run for run in found()["Growth Rate"].runs if run.label == "INF")
    assert not run.growth.factor > 0 and run.growth.largest > 1.1


def test_parameters_come_from_the_settings():
    names = {one.name.split(" / ")[0]: one.sweep.parameter for one in found().values()}
    assert names == {
        "Batch Size": "data.batch_size",
        "Growth Rate": "optimizer.growth_rate",
        "Network Alpha": "network.alpha",
        "Network Rank": "network.dim",
        "Scheduler": "schedule.name",
    }


def guide_configs():
    """All settings of the guide as the GUI saved them."""
    studies = json.loads((GUIDE / "studies.json").read_text(encoding="utf-8"))
    for entry in studies["studies"]:
        family = studies["families"].get(entry["family"], {})
        changes = {**entry["overrides"], **entry.get("gui_version_only", {})}
        yield entry["config"], {**studies["base"], **family, **changes}


def test_all_settings_of_the_guide_are_taken_over_but_full_fp16():
    configs = list(guide_configs())
    assert len(configs) == 162
    left = {}
    for name, tree in configs:
        values, ignored = from_gui(tree)
        values.pop("additional_parameters")
        result = translate(Arguments("settings of kohya_ss", values, ignored))
        if result.impossible:
            left[name] = set(result.impossible)
        said = {*result.taken, *result.ignored, *result.impossible}
        parts = {part for item in said for part in item.split(": ")}
        assert set(values) <= parts, name
    assert left == {"Precision/configs/GR 1.02/fp16_full_fp16.json": {"full_fp16"}}


def test_the_published_files_say_what_the_table_says():
    for path in (GUIDE / "raw").rglob("*.json"):
        result = translate(read_arguments(path))
        assert result.settings["epochs"] == 100 and not result.impossible, path
