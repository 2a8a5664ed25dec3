"""Values under several seeds: pairs, verdicts, missing seeds, rounds (lora_lab.study.judge)."""

import csv
import io
import time

import numpy as np
import pytest

from lora_lab.study.judge.judge_values import Looks, judge_values
from lora_lab.study.judge.metric_results import Verdict
from lora_lab.study.judge.paired_runs import Pair, ValueRuns
from lora_lab.study.judge.verdict import judge
from lora_lab.study.read.load import load_sweep
from lora_lab.study.report.comparison import VERDICTS, verdicts_text
from lora_lab.study.report.headline import headline
from study_sweep_builder import SweepBuilder, fingerprints


@pytest.fixture
def sweep(tmp_path):
    # The base's seeds lie far apart: what pairs take away.
    return SweepBuilder(tmp_path / "sweep", seed_spread=0.004, image_noise=0.0002)


def judged(sweep):
    study = judge(load_sweep(sweep.write()))
    return study, {one.run.value: one for one in study.values}


def held_out(one):
    return one.result("held_out_loss")


def test_pairs_under_the_same_seed_see_what_the_spread_of_the_base_hides(sweep):
    sweep.base(3).values("2", 3, effect=0.003).values("32", 3, effect=-0.003)
    study, runs = judged(sweep)
    assert runs["2"].verdict is Verdict.WORSE and runs["32"].verdict is Verdict.BETTER
    result = held_out(runs["2"])
    assert result.effect == pytest.approx(0.003, abs=0.0002)
    assert result.low > 0 and result.seeds == 3 and result.clusters == 8
    assert len(result.by_seed) == 3 and np.mean(result.by_seed) == pytest.approx(result.effect)
    assert "Each value was trained under 3 seeds" in headline(study).details[1]
    # The same values under one seed each: the base's spread hides them.
    alone = SweepBuilder(sweep.folder.with_name("alone"), seed_spread=0.004, image_noise=0.0002)
    alone.base(3).values("2", 1, effect=0.003).values("32", 1, effect=-0.003)
    assert {one.verdict for one in judged(alone)[0].values} == {Verdict.NONE_SHOWN}


def test_a_value_is_one_entry_though_it_has_several_runs(sweep):
    sweep.base(3).values("2", 3, effect=0.003)
    study, _ = judged(sweep)
    assert [one.label for one in study.values] == ["2"]
    assert [one.label for one in study.judged[3:]] == ["2", "2, seed 1235", "2, seed 1236"]
    assert len(study.shown) == 4 and len(study.judged) == 6


def test_three_words_for_three_tests(sweep):
    sweep.base(5).values("2", 5, effect=0.01).values("8", 5).values("9", 5, spread=0.02)
    _, runs = judged(sweep)
    assert [runs[name].verdict for name in ("2", "8", "9")] == [
        Verdict.WORSE,
        Verdict.AS_GOOD,
        Verdict.NONE_SHOWN,
    ]
    assert held_out(runs["9"]).detectable > 0.02 * held_out(runs["9"]).base_mean


def test_the_margin_of_the_study_is_held_to(sweep):
    sweep.sweep_settings = {"margin": 0.0001}
    sweep.base(5).values("8", 5)
    study, runs = judged(sweep)
    assert study.margin == 0.0001 and runs["8"].verdict is Verdict.NONE_SHOWN


def test_identical_runs_are_said_as_such(sweep):
    sweep.image_noise = 0.0
    sweep.base(3).values("8", 3)
    _, runs = judged(sweep)
    result = held_out(runs["8"])
    assert (result.effect, result.low, result.high) == (0, 0, 0)
    assert runs["8"].verdict is Verdict.AS_GOOD and "identical" in result.remark


def test_a_failed_seed_is_named_and_the_rest_judged(sweep):
    sweep.base(3).values("2", 3, effect=0.01)
    sweep.runs[4].status, sweep.runs[4].error = "failed", "disk full"
    _, runs = judged(sweep)
    result = held_out(runs["2"])
    assert result.seeds == 2
    assert "seed 1235 left out: failed: disk full" in result.remark


def test_a_seed_with_other_inputs_is_named_and_the_rest_judged(sweep):
    sweep.base(4).values("2", 4, effect=0.01)
    sweep.runs[5].inputs = fingerprints(latents="x")
    _, runs = judged(sweep)
    assert held_out(runs["2"]).seeds == 3
    assert "seed 1235 left out: other latents" in held_out(runs["2"]).remark
    assert runs["2"].verdict is Verdict.WORSE


def test_a_seed_that_the_base_lacks_is_left_out(sweep):
    sweep.base(4).values("2", 4, effect=0.01)
    sweep.runs[2].status = "failed"
    result = held_out(judged(sweep)[1]["2"])
    assert result.seeds == 3 and "seed 1236 left out: no base run of this seed" in result.remark


def test_a_value_with_one_seed_among_values_with_five_does_not_blind_them(sweep):
    sweep.base(5).values("2", 5, effect=0.003).values("32", 1, effect=-0.003)
    _, runs = judged(sweep)
    assert runs["2"].verdict is Verdict.WORSE and held_out(runs["2"]).seeds == 5
    assert runs["32"].verdict is Verdict.NONE_SHOWN and held_out(runs["32"]).seeds == 1


def test_seeds_that_a_value_lacks_leave_it_judged_under_the_others(sweep):
    sweep.base(5).values("2", 5, effect=0.003).values("8", 3, effect=0.003)
    sweep.runs[6].status = "missing"
    _, runs = judged(sweep)
    assert (held_out(runs["2"]).seeds, held_out(runs["8"]).seeds) == (4, 3)
    assert "seed 1235 left out: missing: its folder holds no run.json" in held_out(runs["2"]).remark
    assert runs["2"].verdict is Verdict.WORSE


def test_a_second_run_under_one_seed_is_named_and_left_out(sweep):
    sweep.base(4).values("2", 4, effect=0.003)
    sweep.value("2", effect=0.9, seed=1235, name="again")
    result = held_out(judged(sweep)[1]["2"])
    assert result.seeds == 4 and result.effect == pytest.approx(0.003, abs=0.0003)
    assert "a second run under seed 1235 left out: again" in result.remark


def test_one_cluster_gives_no_verdict(sweep, monkeypatch):
    monkeypatch.setattr("study_sweep_builder.IMAGES", {"a": 0.0})
    sweep.base(3).values("2", 3, effect=0.01)
    one = judged(sweep)[1]["2"]
    assert one.verdict is Verdict.NOT_RANKED and "1 held-out image was measured" in one.reason


def test_all_seeds_failed_is_one_reason(sweep):
    sweep.base(3).values("2", 3, status="failed", error="NaN")
    assert judged(sweep)[1]["2"].reason == "failed: NaN"


def test_numbers_have_a_trend_with_a_test_of_its_own(sweep):
    sweep.base(5)
    for value, effect in (("2", 0.003), ("8", 0.001), ("64", -0.002)):
        sweep.values(value, 5, effect=effect)
    study, _ = judged(sweep)
    (trend,) = study.trends
    assert trend.shown and trend.by_factor and trend.seeds == 5
    assert trend.slope == pytest.approx(-0.001, abs=0.0002)
    assert trend.low < trend.slope < trend.high < 0
    told = "With each doubling of network.dim: Held-out loss falls (−"
    assert any(text.startswith(told) for text in headline(study).details)


def test_names_have_no_trend(tmp_path):
    sweep = SweepBuilder(tmp_path / "s", parameter="optimizer", base_value="adamw")
    sweep.base(3).values("prodigy", 3).values("lion", 3)
    assert judged(sweep)[0].trends == ()


def test_more_seeds_are_proposed_where_nothing_was_seen(sweep):
    sweep.base(3).values("8", 3, spread=0.002)
    study, runs = judged(sweep)
    needed = held_out(runs["8"]).seeds_needed
    assert needed > 3
    assert any(f"study.seeds={needed}" in text for text in headline(study).details)


def test_rounds_share_the_error_rate(sweep):
    sweep.sweep_settings = {"seeds": [1234, 1235, 1236], "max_seeds": 8}
    sweep.base(8).values("2", 3, effect=0.01).values("8", 8, spread=0.004)
    study, runs = judged(sweep)
    assert study.looks.counts == (3, 5, 8)
    first, last = held_out(runs["2"]), held_out(runs["8"])
    assert (first.seeds, last.seeds) == (3, 8)
    assert first.verdict is Verdict.WORSE
    assert first.level + last.level < 0.05


def test_a_sweep_of_one_round_spends_all_of_the_error_rate(sweep):
    sweep.base(3).values("2", 3)
    assert held_out(judged(sweep)[1]["2"]).level == pytest.approx(0.05)


def test_verdicts_stand_in_a_table_for_programs(sweep):
    sweep.base(3).values("2", 3, effect=0.003).value("=1+1", status="failed", error="x")
    rows = list(csv.DictReader(io.StringIO(verdicts_text(judged(sweep)[0]))))
    assert list(rows[0]) == list(VERDICTS)
    assert rows[0]["value"] == "2" and rows[0]["verdict"] == "worse"
    assert rows[0]["metric"] == "held_out_loss" and rows[0]["seeds"] == "3"
    assert float(rows[0]["low"]) > 0 and rows[0]["clusters"] == "8"


def test_two_hundred_values_are_judged_in_seconds(sweep):
    # Without the files: what counts is the decision.
    folder = sweep.base(3).write()
    base = [load_sweep(folder).runs[place] for place in range(3)]
    rng = np.random.default_rng(0)
    values = []
    for index in range(200):
        effect = 0.02 if index % 10 == 0 else 0.0
        pairs = []
        for one in base:
            shift = effect + rng.normal(0, 0.0003)
            scores = {
                key: score + shift + rng.normal(0, 0.001)
                for key, score in one.scores["held_out_loss"].items()
            }
            pairs.append(
                Pair(one.seed, type(one)(**{**vars(one), "scores": {"held_out_loss": scores}}), one)
            )
        values.append(ValueRuns(str(index), tuple(pairs)))
    began = time.process_time()
    found = judge_values(values, base, "x", Looks(((1234, 1235, 1236),), (3,)), 0.02)
    assert time.process_time() - began < 20
    worse = [name for name, results in found.results.items() if results[0].verdict is Verdict.WORSE]
    assert worse == [str(index) for index in range(0, 200, 10)]
