"""Runs that were trained in stacks: their share of the time, and pairs of two ways."""

import csv
import io
import json

import pytest

from lora_lab.study.judge import stacked_pairs
from lora_lab.study.judge.verdict import judge
from lora_lab.study.read.load import load_sweep
from lora_lab.study.report.comparison import comparison_text
from lora_lab.study.report.page import total_seconds
from lora_lab.study.report.texts import limits
from study_sweep_builder import SweepBuilder

OF_A_STACK = 4 + 0.5 + 20 + 0.4
"""Seconds that each made-up run records, without its sampling."""


@pytest.fixture
def sweep(tmp_path):
    return SweepBuilder(tmp_path / "sweep", seed_spread=0.004, image_noise=0.0002)


def judged(sweep):
    return judge(load_sweep(sweep.write()))


def test_a_run_of_a_stack_has_its_share_of_the_stacks_time(sweep):
    sweep.base(2, stack=4).values("8", 2, stack=4)
    study = judged(sweep)
    for one in study.judged:
        assert one.measures.seconds == pytest.approx(OF_A_STACK / 4)
        assert one.measures.step_median == pytest.approx(0.25 / 4)
        assert one.measures.seconds_training == pytest.approx(20 / 4)
    assert total_seconds(study.judged) == pytest.approx(OF_A_STACK)
    rows = list(csv.DictReader(io.StringIO(comparison_text(study))))
    assert {row["stack"] for row in rows} == {"4"}
    assert float(rows[0]["seconds"]) == pytest.approx(OF_A_STACK / 4)


def test_runs_that_were_trained_alone_keep_their_time(sweep):
    study = judged(sweep.base(2).values("8", 2))
    assert total_seconds(study.judged) == pytest.approx(4 * OF_A_STACK)


@pytest.mark.parametrize("stack", [0, -3, True, 2.5, "4", None])
def test_a_stack_that_is_no_number_of_runs_is_one_run(sweep, stack):
    folder = sweep.base(2).values("8", 2).write()
    path = folder / "base" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"stack": {"runs": stack}}))
    assert judge(load_sweep(folder)).judged[0].measures.seconds == pytest.approx(OF_A_STACK)


def test_pairs_of_two_ways_are_one_where_the_difference_is_far_above_the_tolerance(sweep):
    sweep.base(5, stack=4).values("2", 5, effect=0.003)
    study = judged(sweep)
    assert study.values[0].verdict.value == "worse"
    assert study.stacks_told == ""


def test_pairs_of_two_ways_are_told_where_the_difference_is_near_the_tolerance(sweep, monkeypatch):
    monkeypatch.setattr(stacked_pairs, "TOLERANCE", {"held_out_loss": 1e-3})
    sweep.base(5, stack=4).values("2", 5, effect=0.003).values("8", 5, stack=4, effect=0.003)
    study = judged(sweep)
    assert "in held-out loss is the setting’s: of 2 and the base" in study.stacks_told
    assert study.stacks_told in limits(study)


def test_pairs_of_one_way_are_not_told_of(sweep, monkeypatch):
    monkeypatch.setattr(stacked_pairs, "TOLERANCE", {})
    assert judged(sweep.base(5, stack=4).values("2", 5, effect=0.003, stack=2)).stacks_told == ""
