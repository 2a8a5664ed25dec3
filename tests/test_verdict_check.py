"""The check of the method: its runs, its studies, and what it finds on made-up runs."""

import numpy as np
import pytest

from lora_lab.checkpoint.embedded import locate
from lora_lab.study import check
from lora_lab.study.check import (
    FIRST_SEED,
    PLANTED,
    SEEDS,
    STUDY_RUNS,
    check_runs,
    deal,
    main,
    plan,
    settings,
    shuffle_captions,
)
from lora_lab.study.read.load import load_run
from study_sweep_builder import FakeRun, SweepBuilder, write_run

POOL = 24
EFFECTS = {"dim8": 0.0, "offset": 0.0, "lr0": 0.01, "shuffled": 0.01, "dim1": 0.01}


def make_runs(folder, effects):
    """Runs that differ by their seed alone, and runs with effects of known size."""
    builder = SweepBuilder(folder, image_noise=0.0002)
    runs = {}
    for name in plan(POOL, 1, folder):
        kind, seed = name.rsplit("-", 1)
        own = 0.0005 * np.random.default_rng(int(seed)).normal()
        value = {"dim32": "32", "dim1": "1", "dim8": "8"}.get(kind, "16")
        write_run(builder, FakeRun(value, "value", name, int(seed), own + effects.get(kind, 0.0)))
        runs[name] = load_run(folder, {"name": name, "folder": name})
    return runs


def test_equal_runs_pass_and_planted_effects_are_found(tmp_path):
    result = check_runs(tmp_path, make_runs(tmp_path, EFFECTS), repeats=1, deals=10)
    assert result["null"]["studies"] == 20 and result["null"]["share"] <= 0.05
    found = {row["effect"]: row["found"] for row in result["planted"]}
    assert found["learning rate 0"] == found["captions of other images"] == 1
    assert found["dim 8 against 16"] == 0
    assert result["passed"]


def test_effects_that_are_not_there_fail_the_check(tmp_path):
    result = check_runs(tmp_path, make_runs(tmp_path, {}), repeats=1, deals=2)
    assert not result["passed"]


def test_a_test_that_finds_what_is_not_there_fails_the_check(tmp_path, monkeypatch):
    runs = make_runs(tmp_path, EFFECTS)
    monkeypatch.setattr("lora_lab.study.check.verdicts", lambda study: {"x": "better"})
    result = check_runs(tmp_path, runs, repeats=1, deals=2)
    assert result["null"]["share"] == 1 and not result["passed"]


def test_studies_that_are_dealt_at_once_share_no_run():
    names = [f"base-{seed}" for seed in range(50)]
    studies = deal(names, 0)
    assert len(studies) == 50 // STUDY_RUNS
    members = [name for study in studies for name in study]
    assert len(set(members)) == len(members) == 4 * STUDY_RUNS
    assert deal(names, 0) == studies != deal(names, 1)


def test_every_run_of_the_plan_has_valid_settings_of_its_own(tmp_path):
    shuffle_captions(locate("embedded:person"), tmp_path / "shuffled_captions")
    runs = plan(4, 1, tmp_path)
    configs = [settings(overrides) for overrides in runs.values()]
    assert len(runs) == 4 + SEEDS * (1 + len(PLANTED))
    assert all(config not in configs[:index] for index, config in enumerate(configs))
    assert f"dim1-{FIRST_SEED}" in runs


def test_shuffled_captions_give_each_image_that_of_another_one(tmp_path):
    source = locate("embedded:person")
    shuffle_captions(source, tmp_path / "s")
    before = {p.name: p.read_text() for p in (source / "train").rglob("*.txt")}
    after = {p.name: p.read_text() for p in (tmp_path / "s" / "train").rglob("*.txt")}
    assert sorted(before.values()) == sorted(after.values())
    assert all(before[name] != after[name] for name in before)


def test_runs_are_scored_by_what_scores_a_sweep(tmp_path, monkeypatch, caplog):
    """Loaded once for the folder, with the check's own settings; what is missing is told."""
    loaded, scored = [], []

    class Scorer:
        def score_run(self, run):
            scored.append(run.folder.name)
            return [f"{run.folder.name} lacks an image"]

    def load(folder, config):
        loaded.append((folder, config))
        return Scorer(), ["no DINO"]

    monkeypatch.setattr(check, "load_scorer", load)
    check.scorer_of.cache_clear()
    builder = SweepBuilder(tmp_path)
    for name in ("base-1", "base-2"):
        write_run(builder, FakeRun("16", "value", name))
        check.score_all(tmp_path, [name])
    check.scorer_of.cache_clear()
    assert loaded == [(tmp_path, settings(check.SHORT))] and scored == ["base-1", "base-2"]
    assert caplog.messages == ["no DINO", "base-1 lacks an image", "base-2 lacks an image"]


def test_a_pool_too_small_for_a_study_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--folder", str(tmp_path), "--pool", "3"])
    assert "--pool must be >= 12, got 3" in capsys.readouterr().err
