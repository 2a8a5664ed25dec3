"""The simulation behind the choice of the test (lora_lab.study.simulate), in small."""

import numpy as np
import pytest

from lora_lab.statistics.family import ALPHA, decide
from lora_lab.study.simulate import (
    METRICS,
    PARTS,
    TESTS,
    SimulatedCell,
    allowed,
    draw,
    false_early_ends,
    false_rounds,
    false_studies,
    main,
    pocket_power,
    worst,
)

CHOSEN = list(TESTS)[-1]
STUDIES = 1000
HARD = [
    SimulatedCell(seeds, clusters, values, parts, spread)
    for seeds, clusters in ((1, 8), (2, 8), (3, 5), (8, 24))
    for values in (1, 8)
    for parts in ("seeds", "clusters", "balanced")
    for spread in ("equal", "one varies more")
    if spread == "equal" or (values > 1 and seeds > 1)
] + [SimulatedCell(3, 12, 3, "seeds", metrics=METRICS, correlation=0.9)]


def test_no_kind_of_study_without_differences_shows_one_more_often_than_five_of_a_hundred():
    rows = false_studies(HARD, STUDIES, {CHOSEN: TESTS[CHOSEN]})
    assert worst(rows, CHOSEN) <= allowed(STUDIES)
    # Not so firm that nothing could ever be seen.
    assert worst(rows, CHOSEN) > 0.03


@pytest.mark.parametrize(
    ("test", "cell"),
    [
        ("Satterthwaite, Holm", SimulatedCell(2, 8, 8, "seeds")),
        ("pooled variance", SimulatedCell(3, 8, 8, "seeds", "one varies more")),
        ("F1 and F2, Holm", SimulatedCell(8, 24, 8, "balanced")),
        ("K - 1 df, Holm", SimulatedCell(8, 5, 20, "clusters")),
    ],
)
def test_the_tests_that_were_not_chosen_fail_somewhere(test, cell):
    rows = false_studies([cell], STUDIES, {test: TESTS[test], CHOSEN: TESTS[CHOSEN]})
    assert worst(rows, test) > allowed(STUDIES) >= worst(rows, CHOSEN)


def test_a_simulated_study_has_the_variance_parts_that_it_was_asked_for():
    effects = draw(SimulatedCell(5, 12, 1, "seeds"), 4000, np.random.default_rng(0))
    # Two runs: twice the seeds' variance over 5 seeds, and what else there is.
    expected = 2 * (1 / 5 + 0.05**2 / 12 + 0.3**2 / 60)
    assert effects.effect.var() == pytest.approx(expected, rel=0.08)
    shared = draw(SimulatedCell(5, 12, 2, "seeds"), 4000, np.random.default_rng(0)).effect[:, 0]
    assert np.corrcoef(shared.T)[0, 1] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("parts", ["seeds", "balanced"])
def test_looks_round_by_round_hold_the_error_rate_together(parts):
    assert false_rounds(300, parts) <= allowed(300)


def test_looks_that_each_spend_all_of_the_error_rate_would_not(monkeypatch):
    monkeypatch.setattr("lora_lab.study.simulate.look_levels", lambda looks: [0.05] * len(looks))
    assert false_rounds(300, "clusters", values=1) > 0.05


@pytest.mark.parametrize("parts", sorted(PARTS))
@pytest.mark.parametrize("worse", [False, True], ids=["nothing differs", "half are worse"])
def test_early_ends_and_verdicts_together_hold_the_error_rate(parts, worse):
    assert false_early_ends(500, parts, worse=worse) <= allowed(500)


def test_early_ends_and_verdicts_that_each_spend_all_of_it_would_not(monkeypatch):
    monkeypatch.setattr("lora_lab.study.simulate.LIKE_AT_PAUSE", 0.0)
    monkeypatch.setattr(
        "lora_lab.study.simulate.decide", lambda effects, level: decide(effects, ALPHA)
    )
    assert false_early_ends(2000, "clusters", seeds=8, values=1) > 0.06


def test_more_seeds_see_more_of_what_was_measured_on_pocket():
    few, more = pocket_power(300, (3, 8), {CHOSEN: TESTS[CHOSEN]})
    assert more["1.0"] > few["1.0"]


def test_the_simulation_writes_its_tables_and_a_figure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lora_lab.study.simulate.SEEDS", (1, 3))
    monkeypatch.setattr("lora_lab.study.simulate.null_cells", lambda: HARD[:12])
    monkeypatch.setattr("lora_lab.study.simulate.MOST_ROUNDS", 20)
    monkeypatch.setattr(
        "lora_lab.study.simulate.pocket_power",
        lambda studies: pocket_power(studies, (3,)),
    )
    assert main(["--studies", "100", "--out", str(tmp_path)]) in (0, 1)
    assert {path.name for path in tmp_path.iterdir()} == {
        "false_studies.csv",
        "seen_on_pocket.csv",
        "summary.md",
        "verdict_simulation.webp",
    }
    assert "of 100 studies" in capsys.readouterr().out
