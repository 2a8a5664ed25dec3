"""The check of the method: its runs, its comparisons, and what it finds on made-up runs."""

import pytest

from lora_lab.checkpoint.embedded import locate
from lora_lab.study.check import (
    BASE_RUNS,
    check_runs,
    comparisons,
    main,
    plan,
    settings,
    shuffle_captions,
)
from study_sweep_builder import FakeRun, SweepBuilder, write_run

SEEDS = range(1234, 1242)


def make_runs(folder, planted):
    """Base runs that differ by their seed alone, and runs with effects of known size."""
    spread = dict(zip(SEEDS, (0.0, 0.3, -0.2, 0.1, -0.3, 0.25, -0.1, 0.05), strict=True))
    builder = SweepBuilder(folder)
    names = []
    for seed in SEEDS:
        effect = 0.0005 * spread[seed]
        names.append(f"base-{seed}")
        write_run(builder, FakeRun("16", "base", names[-1], seed, effect))
    for seed in list(SEEDS)[:BASE_RUNS]:
        names.append(f"dim32-{seed}")
        write_run(builder, FakeRun("32", "base", names[-1], seed, 0.0005 * spread[seed]))
    for name, value in (("lr0", "16"), ("shuffled", "16"), ("dim1", "1")):
        names.append(name)
        write_run(builder, FakeRun(value, "value", name, 1234, planted))
    return names


def test_equal_runs_pass_and_planted_effects_are_found(tmp_path):
    result = check_runs(tmp_path, make_runs(tmp_path, 0.01))
    assert result["false_verdicts"] == 0 and result["passed"]
    assert [entry["shown"] for entry in result["planted"]] == [{"held_out_loss": "worse"}] * 3


def test_effects_that_are_not_there_fail_the_check(tmp_path):
    result = check_runs(tmp_path, make_runs(tmp_path, 0.0))
    assert not result["passed"]


def test_a_value_is_never_among_its_own_base_runs():
    names = [f"base-{seed}" for seed in SEEDS]
    drawn = comparisons(names)
    assert len(drawn) == 20
    assert all(value not in base and len(set(base)) == BASE_RUNS for value, base in drawn)
    assert {value for value, _ in drawn} == set(names)
    assert drawn == comparisons(names)


def test_every_run_of_the_plan_has_valid_settings_of_its_own(tmp_path):
    shuffle_captions(locate("embedded:person"), tmp_path / "shuffled_captions")
    runs = plan(5, tmp_path)
    configs = [settings(overrides) for overrides in runs.values()]
    assert len(runs) == 5 + 3 + 3
    assert all(config not in configs[:index] for index, config in enumerate(configs))


def test_shuffled_captions_give_each_image_that_of_another_one(tmp_path):
    source = locate("embedded:person")
    shuffle_captions(source, tmp_path / "s")
    before = {p.name: p.read_text() for p in (source / "train").rglob("*.txt")}
    after = {p.name: p.read_text() for p in (tmp_path / "s" / "train").rglob("*.txt")}
    assert sorted(before.values()) == sorted(after.values())
    assert all(before[name] != after[name] for name in before)


def test_too_few_seeds_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--folder", str(tmp_path), "--seeds", "3"])
    assert "--seeds must be >= 5, got 3" in capsys.readouterr().err
