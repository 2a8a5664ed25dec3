"""The verdict in several metrics: image scores beside the held-out loss."""

import json

import numpy as np
import pytest

from lora_lab.run_folder.scores_file import SCORES_FILE, read_recipe, read_scores, write_scores
from lora_lab.study.judge.metric_results import Verdict
from lora_lab.study.judge.verdict import judge
from lora_lab.study.read.load import load_sweep
from lora_lab.study.report.headline import headline
from study_sweep_builder import SweepBuilder, fingerprints


@pytest.fixture
def sweep(tmp_path):
    return SweepBuilder(tmp_path / "sweep")


def with_scores(sweep, shifts, spread=0.002):
    """Writes image scores whose truth is known: prompts and seeds vary, a run is shifted."""
    folder = sweep.write()
    for run in sweep.runs:
        shift = shifts.get(run.value if run.role == "value" else run.name, 0.0)
        rng = np.random.default_rng(run.seed)
        own = rng.normal(0, spread) if run.role == "base" else 0.0
        rows = [
            ["identity_clip", f"prompt {p}", str(s), 0.7 + 0.01 * p + 0.001 * s + shift + own]
            for p in range(8)
            for s in range(4)
        ]
        content = {"recipe": {}, "columns": [], "scores": rows}
        (folder / run.name / "image_scores.json").write_text(json.dumps(content))
    return judge(load_sweep(folder))


def test_each_metric_has_a_verdict_of_its_own(sweep):
    sweep.base(3).value("2", effect=-0.01).value("8")
    study = with_scores(sweep, {"2": -0.1})
    two, eight = study.values
    assert [metric.name for metric in study.metrics] == ["held_out_loss", "identity_clip"]
    assert two.verdict is Verdict.MIXED and eight.verdict is Verdict.AS_GOOD
    assert two.result("identity_clip").verdict is Verdict.WORSE
    assert two.result("held_out_loss").verdict is Verdict.BETTER
    assert two.result("identity_clip").mean == pytest.approx(0.6365)
    text = headline(study).details[0]
    assert "2 is better than the base (16) in held-out loss but worse in identity" in text


def test_image_metrics_are_judged_where_the_loss_is_another_quantity(tmp_path):
    sweep = SweepBuilder(tmp_path / "s", parameter="data.resolution", base_value="64").base(3)
    sweep.value("32", inputs=fingerprints(latents="x"))
    (one,) = with_scores(sweep, {"32": -0.1}).values
    assert one.verdict is Verdict.WORSE
    assert one.result("held_out_loss").verdict is Verdict.NOT_RANKED


def test_missing_images_are_left_out_of_the_pairs(sweep):
    sweep.base(3).value("2")
    with_scores(sweep, {})
    path = sweep.folder / "network.dim=2" / "image_scores.json"
    content = json.loads(path.read_text())
    content["scores"] = content["scores"][4:]
    path.write_text(json.dumps(content))
    assert judge(load_sweep(sweep.folder)).values[0].result("identity_clip").clusters == 7


def test_damaged_scores_are_told_and_the_rest_is_judged(sweep):
    sweep.base(3).value("2", effect=0.01)
    with_scores(sweep, {})
    (sweep.folder / "network.dim=2" / "image_scores.json").write_text('{"scores": [[1')
    (two,) = judge(load_sweep(sweep.folder)).values
    assert two.verdict is Verdict.WORSE and two.result("identity_clip") is None
    assert any("image_scores.json can't be read" in note for note in two.run.notes)


def test_scores_whose_figures_were_changed_are_told(tmp_path):
    path = tmp_path / SCORES_FILE
    write_scores(path, {"lora": "a"}, {"prompt": {("a", "1"): 0.25}})
    assert read_scores(path) == ({"prompt": {("a", "1"): 0.25}}, "")
    assert read_recipe(path) == {"lora": "a"}
    path.write_text(path.read_text().replace("0.25", "0.75"))
    assert read_scores(path)[1].startswith(f"{SCORES_FILE} can't be read")
    assert read_recipe(path) is None
