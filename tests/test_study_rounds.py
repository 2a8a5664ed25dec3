"""Seeds added round by round: who gets more, who doesn't and why, and what the report says."""

import csv
import math

import pytest

from lora_lab.study.judge.metric_results import MetricResult, Verdict
from lora_lab.study.judge.rounds import can_be_decided, split_values
from lora_lab.study.judge.verdict import judge
from lora_lab.study.read.load import load_sweep
from lora_lab.study.report.build import build_report
from study_sweep_builder import SweepBuilder

SEEDS = [1234, 1235, 1236]


@pytest.fixture
def sweep(tmp_path):
    return SweepBuilder(
        tmp_path / "sweep",
        seed_spread=0.004,
        image_noise=0.0002,
        sweep_settings={"seeds": SEEDS, "max_seeds": 8, "margin": 0.02},
    )


def split(sweep, most=8):
    return split_values(judge(load_sweep(sweep.write())), most)


def test_decided_values_get_no_more_seeds(sweep):
    sweep.base(3).values("2", 3, effect=0.01).values("8", 3)
    found = split(sweep)
    assert found.open == {}
    assert found.closed == {"2": "worse in held-out loss", "8": "as good in held-out loss"}


def test_an_undecided_value_gets_more(sweep):
    sweep.base(3).values("8", 3, effect=0.004, spread=0.002)
    found = split(sweep)
    assert found.open == {"8": "undecided under 3 seeds"} and found.closed == {}


def test_a_value_that_the_budget_cannot_decide_gets_none(sweep):
    # About as large as the margin, and its seeds lie far apart.
    sweep.base(3).values("8", 3, effect=0.0022, spread=0.012)
    assert split(sweep, most=4).closed == {
        "8": "undecided, and up to 4 seeds would hardly change that"
    }


def test_a_value_at_the_end_of_the_budget_gets_none(sweep):
    sweep.sweep_settings["max_seeds"] = 4
    sweep.base(4).values("8", 4, effect=0.002, spread=0.004)
    assert split(sweep, most=4).closed == {"8": "undecided under all 4 seeds"}


def test_a_failed_value_gets_none(sweep):
    sweep.base(3).values("8", 3, status="failed", error="NaN")
    assert split(sweep).closed == {"8": "failed: NaN"}


def result(effect: float, half: float, seeds: int = 3) -> MetricResult:
    return MetricResult(
        "8",
        "held_out_loss",
        Verdict.NONE_SHOWN,
        base_mean=1.0,
        effect=effect,
        low=effect - half,
        high=effect + half,
        level=0.05,
        seeds=seeds,
    )


def test_more_seeds_narrow_an_interval_as_student_says():
    """t(2) = 4.303 and t(7) = 2.365 at 5 %: half of 0.043 becomes 0.0145 with 8 seeds."""
    width = 0.043 / 4.303 * 2.365 * math.sqrt(3 / 8)
    assert width == pytest.approx(0.01447, rel=1e-3)
    error = 0.043 / 4.303
    just_seen = width - error
    assert can_be_decided(result(just_seen * 1.05, 0.043), 8, margin=0.0001)
    assert not can_be_decided(result(just_seen * 0.95, 0.043), 8, margin=0.0001)
    assert can_be_decided(result(0.0, 0.043), 8, margin=0.015)  # shown to be as good


def test_the_report_says_who_got_how_many_seeds_and_why(sweep):
    sweep.sweep_settings["rounds"] = [
        {
            "look": 3,
            "seeds": [1237, 1238],
            "open": {"8": "undecided under 3 seeds"},
            "closed": {"2": "worse in held-out loss"},
        },
        {"look": 5, "seeds": [], "open": {}, "closed": {"8": "as good in held-out loss"}},
    ]
    sweep.base(5).values("2", 3, effect=0.01).values("8", 5, effect=0.004, spread=0.002)
    page = build_report(sweep.write()).page.read_text(encoding="utf-8")
    assert '<th scope="row">2</th><td>3</td><td>worse in held-out loss</td>' in page
    assert '<th scope="row">8</th><td>5</td><td>as good in held-out loss</td>' in page
    with open(sweep.folder / "report" / "verdicts.csv", encoding="utf-8") as file:
        seeds = {row["value"]: row["seeds"] for row in csv.DictReader(file)}
    assert seeds == {"2": "3", "8": "5"}


def test_a_sweep_with_one_round_has_no_word_on_rounds(sweep):
    sweep.sweep_settings = {"seeds": SEEDS, "max_seeds": None}
    sweep.base(3).values("2", 3, effect=0.01)
    assert 'id="seeds"' not in build_report(sweep.write()).page.read_text(encoding="utf-8")
