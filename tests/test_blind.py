"""Blind choices: which pairs are shown, what an answers file may say, and what follows from it."""

import json
import math
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from blind_sweep import PROMPTS, SEEDS, blind_sweep
from lora_lab.errors import ConfigError, LabError
from lora_lab.statistics.bradley_terry import PRIOR, strengths
from lora_lab.study.__main__ import main
from lora_lab.study.read.blind import FORMAT, METRIC, agreement, read_answers, with_answers
from lora_lab.study.read.load import load_sweep
from lora_lab.study.report.blind_page import pairs_of, write_blind_page


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return blind_sweep(tmp_path_factory.mktemp("blind") / "sweep")


def answers(folder: Path, path: Path, choose) -> Path:
    """The file that the page would save for someone who chooses by looking at the runs."""
    rows = [
        {"left": pair.left.key, "right": pair.right.key, "choice": choose(pair)}
        for pair in pairs_of(load_sweep(folder))
    ]
    path.write_text(json.dumps({"format": FORMAT, "answers": rows}), encoding="utf-8")
    return path


def prefers(value: str):
    """Chooses the images of one value, and sees no difference elsewhere."""

    def choose(pair) -> str:
        for side in ("left", "right"):
            run = getattr(pair, side).run
            if not run.is_base and run.value == value:
                return side
        return "tie"

    return choose


def test_every_value_meets_the_base_once_for_each_seed_and_prompt(folder):
    pairs = pairs_of(load_sweep(folder))
    assert len(pairs) == PROMPTS * len(SEEDS) * 2
    for pair in pairs:
        one, other = pair.left, pair.right
        assert one.run.is_base != other.run.is_base
        assert (one.run.seed, one.prompt, one.seed) == (other.run.seed, other.prompt, other.seed)
    sides = [pair.left.run.is_base for pair in pairs]
    assert 6 < sum(sides) < len(sides) - 6  # neither side is the base's


def test_pairs_come_prompt_by_prompt_so_that_one_may_stop_early(folder):
    prompts = [pair.left.prompt for pair in pairs_of(load_sweep(folder))]
    changes = sum(a != b for a, b in pairwise(prompts))
    assert changes == PROMPTS - 1


def test_the_page_names_no_run_and_is_the_same_each_time(folder, tmp_path):
    path = write_blind_page(load_sweep(folder), tmp_path)
    assert path is not None
    text = path.read_text(encoding="utf-8")
    assert "network.dim" not in text and "seed=1235" not in text
    write_blind_page(load_sweep(folder), tmp_path)
    assert path.read_text(encoding="utf-8") == text


def test_a_sweep_without_images_has_no_page(folder, tmp_path):
    copy = tmp_path / "sweep"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("images"))
    assert write_blind_page(load_sweep(copy), tmp_path) is None


def test_choices_become_scores_of_value_and_base(folder, tmp_path):
    sweep = load_sweep(folder)
    blind = read_answers(answers(folder, tmp_path / "a.json", prefers("8")), sweep)
    scores = with_answers(sweep.runs, blind)
    of_value = {run.value: scores[run.name] for run in sweep.runs if not run.is_base}
    assert set(of_value["8"].values()) == {1.0} and set(of_value["2"].values()) == {0.0}
    assert all(set(scores[run.name].values()) == {0.0} for run in sweep.base_runs)
    assert len(of_value["8"]) == PROMPTS


def test_answers_to_verdict(folder, tmp_path, capsys):
    copy = tmp_path / "sweep"
    shutil.copytree(folder, copy)
    file = answers(copy, tmp_path / "a.json", prefers("8"))
    assert main([str(copy), "--blind", str(file)]) == 0
    rows = (copy / "report" / "verdicts.csv").read_text(encoding="utf-8").splitlines()
    found = {row.split(",")[1]: row.split(",")[3] for row in rows if f",{METRIC}," in row}
    assert found == {"2": "no difference seen", "8": "better"}
    page = (copy / "report" / "index.html").read_text(encoding="utf-8")
    assert "Chosen blind" in page


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"format": FORMAT, "answers": [{"left": "0" * 16, "right": "1" * 16, "choice": "tie"}]},
         "holds answers of another study"),
        ({"format": FORMAT, "answers": []}, "holds no answers yet"),
        ({"format": FORMAT, "answers": [{"left": "a", "right": "b", "choice": "both"}]},
         "a choice must be left, right or tie, got 'both'"),
        ({"format": FORMAT, "answers": [{"left": "a"}]}, "is not an answers file"),
        ({"answers": 3}, "is not an answers file"),
        ([], "is not an answers file"),
    ],
)  # fmt: skip
def test_a_wrong_answers_file_is_refused_in_one_line(folder, tmp_path, content, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_answers(path, load_sweep(folder))


def test_the_answers_of_another_sweep_are_refused(folder, tmp_path):
    """Its images look the same, but other runs drew them."""
    copy = tmp_path / "other"
    shutil.copytree(folder, copy)
    record = json.loads((copy / "sweep.json").read_text())
    for run in record["runs"]:
        run["name"] = f"other-{run['name']}"
    (copy / "sweep.json").write_text(json.dumps(record))
    file = answers(folder, tmp_path / "a.json", prefers("8"))
    with pytest.raises(ConfigError, match="holds answers of another study"):
        read_answers(file, load_sweep(copy))


def test_a_missing_or_broken_answers_file_is_named(folder, tmp_path):
    with pytest.raises(ConfigError, match="is missing; save it on the page"):
        read_answers(tmp_path / "none.json", load_sweep(folder))
    (tmp_path / "cut.json").write_text('{"format": ', encoding="utf-8")
    with pytest.raises(LabError, match="can't be read as JSON"):
        read_answers(tmp_path / "cut.json", load_sweep(folder))


def test_answers_on_images_that_are_gone_are_left_out_and_told(folder, tmp_path):
    file = answers(folder, tmp_path / "a.json", prefers("8"))
    copy = tmp_path / "sweep"
    shutil.copytree(folder, copy)
    shutil.rmtree(copy / "network.dim=8_seed=1236")
    blind = read_answers(file, load_sweep(copy))
    assert len(blind.answers) == PROMPTS * 5
    assert blind.notes[0].startswith("6 of 36 blind answers are about images that are not in this")


def test_agreement_counts_choices_that_a_metric_would_have_made(folder, tmp_path):
    from dataclasses import replace

    sweep = load_sweep(folder)
    blind = read_answers(answers(folder, tmp_path / "a.json", prefers("8")), sweep)
    told = []
    for place, one in enumerate(blind.answers):
        unit = {(one.one.prompt, str(one.one.seed)): 0.0}
        better = {key: 1.0 if place % 2 else -1.0 for key in unit}
        value = replace(one.one, run=replace(one.one.run, scores={"identity_clip": better}))
        base = replace(one.base, run=replace(one.base.run, scores={"identity_clip": unit}))
        told.append(replace(one, one=value, base=base))
    chosen = [place for place, one in enumerate(blind.answers) if one.score != 0.5]
    expected = sum(place % 2 for place in chosen)
    assert agreement(told, "identity_clip") == (expected, len(chosen))
    assert agreement(told, "identity_dino") == (0, 0)


def test_two_items_have_the_ratio_of_their_wins():
    found = strengths(np.array([[0.0, 12.0], [3.0, 0.0]]))
    assert found[0] / found[1] == pytest.approx((12 + PRIOR) / (3 + PRIOR))
    assert found[0] * found[1] == pytest.approx(1.0)


def test_the_strengths_make_each_item_win_as_often_as_it_did():
    """The condition of the maximum: Hunter 2004, equation 2."""
    wins = np.array([[0, 7, 3.5], [2, 0, 6], [4.5, 1, 0]])
    found = strengths(wins)
    counted = wins + PRIOR * (1 - np.eye(3))
    games = counted + counted.T
    expected = (games * found[:, None] / (found[:, None] + found[None, :])).sum(axis=1)
    assert expected == pytest.approx(counted.sum(axis=1), rel=1e-6)


def test_an_item_that_met_nobody_has_no_strength():
    found = strengths(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    assert found[:2] == pytest.approx([1.0, 1.0]) and math.isnan(found[2])
