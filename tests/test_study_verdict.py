"""When a value may be called better, and what the headline then says."""

import pytest

from lora_lab.study.judge.comparable import parameters_of
from lora_lab.study.judge.metric_results import Verdict
from lora_lab.study.judge.verdict import judge, same_value
from lora_lab.study.read.load import load_sweep
from lora_lab.study.report.headline import headline
from study_sweep_builder import SweepBuilder, fingerprints


@pytest.fixture
def sweep(tmp_path):
    return SweepBuilder(tmp_path / "sweep")


def judged(sweep):
    study = judge(load_sweep(sweep.write()))
    return study, {one.label: one for one in study.judged}


def sentence(sweep):
    """The first line and the one below it, which has every metric and size."""
    words = headline(judged(sweep)[0])
    return " ".join([words.sentence, *words.details[:1]])


def test_a_difference_beyond_what_another_seed_does_is_a_verdict(sweep):
    sweep.base(3).value("32", effect=-0.005).value("2", effect=0.005)
    study, runs = judged(sweep)
    assert study.floor.sd == pytest.approx(0.0002)
    assert runs["32"].verdict is Verdict.BETTER
    assert runs["2"].verdict is Verdict.WORSE
    assert runs["32"].result("held_out_loss").effect == pytest.approx(-0.0052)


def test_a_difference_within_what_another_seed_does_is_none(sweep):
    sweep.seed_spread = 0.002
    sweep.base(3).value("8", effect=0.011)
    assert judged(sweep)[1]["8"].verdict is Verdict.NONE_SHOWN
    assert "no difference seen" in sentence(sweep)


def test_the_floor_is_pooled_over_late_points_so_that_luck_at_the_end_does_not_shrink_it(sweep):
    sweep.base(3)
    folder = sweep.write()
    path = folder / "base-2" / "metrics.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    base_lines = (folder / "base" / "metrics.csv").read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:-1], base_lines[-1]]) + "\n", encoding="utf-8")
    assert judge(load_sweep(folder)).floor.sd > 0.0001


def test_with_one_base_seed_nothing_is_ranked(sweep):
    sweep.base(1).value("32", effect=-0.05)
    study, runs = judged(sweep)
    assert runs["32"].verdict is Verdict.NOT_RANKED and "one base run" in study.floor.reason
    assert sentence(sweep).startswith("No verdict on network.dim")


def test_base_runs_of_the_same_seed_are_no_floor(sweep):
    sweep.base(1)
    sweep.base(1)
    sweep.runs[1].name = "base-2"
    assert judged(sweep)[0].floor.seeds == 1


def test_base_runs_that_end_alike_are_no_floor(sweep):
    sweep.seed_spread = 0.0
    sweep.base(3).value("8", effect=1e-6)
    study, runs = judged(sweep)
    assert "nothing was learned" in study.floor.reason and runs["8"].verdict is Verdict.NOT_RANKED
    assert "nothing was learned" in runs["8"].reason


def test_without_a_base_nothing_is_ranked(sweep):
    sweep.base(3, status="failed", error="disk full").value("8")
    study, runs = judged(sweep)
    assert study.base is None and runs["8"].verdict is Verdict.NOT_RANKED
    assert "no run of the base" in sentence(sweep)


def test_without_held_out_loss_nothing_is_ranked(sweep):
    sweep.base(3, held_out=False).value("8", held_out=False)
    assert "neither held-out loss" in judged(sweep)[1]["8"].reason


def test_other_latents_are_refused_and_named(sweep):
    sweep.base(3).value("8", effect=-0.05, inputs=fingerprints(latents="x", vae="y"))
    one = judged(sweep)[1]["8"]
    assert one.verdict is Verdict.NOT_RANKED and one.paired is None and one.first_result is None
    assert "other latents" in one.reason and "other vae" in one.reason
    assert "captions" not in one.reason


def test_a_base_seed_with_other_inputs_does_not_count_for_the_floor(sweep):
    sweep.base(3)
    sweep.runs[1].inputs = fingerprints(images="x")
    study, runs = judged(sweep)
    assert study.floor.seeds == 2 and "other images" in runs["base-2"].reason


def test_a_run_without_fingerprints_is_refused(sweep):
    sweep.base(3).value("8", inputs={})
    assert "records no fingerprints" in judged(sweep)[1]["8"].reason


def test_a_missing_fingerprint_is_refused(sweep):
    inputs = fingerprints()
    del inputs["vae"]
    sweep.base(3).value("8", inputs=inputs)
    assert "no fingerprint of the vae" in judged(sweep)[1]["8"].reason


def test_inputs_that_the_parameter_changes_are_told_as_intended(tmp_path):
    sweep = SweepBuilder(tmp_path / "s", parameter="data.resolution", base_value="64").base(3)
    sweep.value("32", inputs=fingerprints(latents="x"))
    one = judged(sweep)[1]["32"]
    assert one.verdict is Verdict.NOT_RANKED
    assert one.reason == "data.resolution changes the latents that the loss is measured on"


def test_captions_under_study_may_differ(tmp_path):
    sweep = SweepBuilder(tmp_path / "s", parameter="data.caption_extension", base_value=".txt")
    sweep.base(3).value(".cap", effect=-0.01, inputs=fingerprints(captions="x"))
    assert judged(sweep)[1][".cap"].verdict is Verdict.BETTER


def test_another_setting_that_differs_is_refused_and_named(sweep):
    sweep.base(3).value("8", settings={"optimizer.lr": 0.5})
    assert "optimizer.lr=0.5 instead of 1.0" in judged(sweep)[1]["8"].reason


def test_settings_without_influence_may_differ(sweep):
    sweep.base(3).value(
        "8", settings={"output_name": "x", "logger.wandb.group": "y", "overwrite": True}
    )
    assert judged(sweep)[1]["8"].verdict is Verdict.AS_GOOD


def test_a_group_under_study_covers_its_keys(tmp_path):
    sweep = SweepBuilder(tmp_path / "s", parameter="optimizer.name", base_value="dadapt_adam")
    sweep.base(3).value("prodigy")
    sweep.parameter = "optimizer"
    folder = sweep.folder
    for run in sweep.runs:
        run.settings = {"optimizer.name": run.value}
    sweep.parameter = "optimizer.name"
    sweep.write()
    text = (folder / "sweep.json").read_text(encoding="utf-8")
    (folder / "sweep.json").write_text(text.replace('"optimizer.name"', '"optimizer"', 1))
    study = judge(load_sweep(folder))
    assert study.values[0].verdict is Verdict.AS_GOOD


def test_a_value_of_one_seed_is_compared_with_the_mean_over_the_seeds_of_the_base(sweep):
    sweep.base(3).value("8", effect=0.01, seed=99)
    result = judged(sweep)[1]["8"].result("held_out_loss")
    assert result.effect == pytest.approx(0.01 - 0.0002)
    assert result.seeds == 1 and "one seed" in result.remark


def test_training_loss_is_paired_step_by_step_without_its_noise(sweep):
    sweep.base(3).value("8", effect=0.01)
    paired = judged(sweep)[1]["8"].paired
    assert paired is not None and paired.unit == "step"
    assert paired.difference[-1] == pytest.approx(0.01)
    assert paired.difference[0] == pytest.approx(0.01 / 80)


def test_values_with_other_steps_are_paired_by_epoch(tmp_path):
    sweep = SweepBuilder(tmp_path / "s", parameter="data.batch_size", base_value="3").base(3)
    sweep.value("6", steps_per_epoch=4)
    paired = judged(sweep)[1]["6"].paired
    assert paired is not None and paired.unit == "epoch"
    assert paired.points.tolist() == list(range(1, 11))


def test_a_failed_value_is_drawn_as_far_as_it_came_but_not_ranked(sweep):
    sweep.base(3).value("0", effect=0.01, status="failed", error="loss is NaN")
    one = judged(sweep)[1]["0"]
    assert one.reason == "failed: loss is NaN" and one.first_result is None
    assert one.paired is not None and one.paired.points[-1] == 40


def test_the_headline_names_better_worse_equal_and_failed(sweep):
    sweep.base(3).value("32", effect=-0.009).value("2", effect=0.009).value("8")
    sweep.value("0", status="failed", error="x")
    text = sentence(sweep)
    assert "32 is better than the base (16) in held-out loss (−8.5 %)" in text
    assert "2 is worse in held-out loss (+8.2 %)" in text
    assert "8 is as good as the base (16) in held-out loss, within 2.0 %" in text
    assert "0 was not trained to the end" in text


def test_the_headline_says_what_would_have_been_seen(sweep):
    sweep.seed_spread = 0.002
    sweep.base(3).value("8")
    assert "no difference seen between 8 and the base (16) (it would have been seen from" in (
        sentence(sweep)
    )


def test_the_headline_says_what_the_verdicts_rest_on(sweep):
    sweep.base(3).value("8")
    evidence = headline(judged(sweep)[0]).details[1]
    assert "under one seed" in evidence and "study.seeds=3" in evidence
    assert "5 in 100" in evidence


def test_the_headline_counts_many_values(sweep):
    sweep.base(3)
    for index in range(12):
        sweep.value(str(100 + index), effect=-0.01 - 0.001 * index)
    text = headline(judged(sweep)[0])
    assert text.sentence == "Of 12 values beside 16, 12 are better."
    assert "12 values, 111 most of all, are better" in text.details[0]


def test_a_smaller_file_is_recommended_only_if_not_shown_to_be_worse(sweep):
    sweep.base(3).value("2", effect=0.05, lora_bytes=100_000).value("8", lora_bytes=500_000)
    details = headline(judged(sweep)[0]).details
    assert any("not shown to be worse: 8, 500 kB" in text for text in details)


def test_a_sweep_that_holds_the_base_value_alone_has_no_verdict(sweep):
    sweep.base(3).value("16.0")
    assert "no value beside the base's own" in sentence(sweep)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("1", "1.0", True), ("a", "a", True), ("1", "2", False), ("null", "1", False)],
)
def test_values_are_the_same_when_they_mean_the_same_number(one, other, same):
    assert same_value(one, other) is same


def test_several_parameters_are_told_apart():
    assert parameters_of("network.dim, +optimizer.lr") == ("network.dim", "optimizer.lr")
