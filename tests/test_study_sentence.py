"""The first line of a report: short, true, and about what matters."""

import itertools
import re

import pytest

from lora_lab.study.judge.verdict import judge
from lora_lab.study.read.load import load_sweep
from lora_lab.study.report.headline import headline
from lora_lab.study.report.sentence import MOST_WORDS, count_words, file_words, name_of
from study_sweep_builder import SweepBuilder


@pytest.fixture
def sweep(tmp_path):
    return SweepBuilder(tmp_path / "sweep", seed_spread=0.004, image_noise=0.0002)


def sentence(sweep) -> str:
    return headline(judge(load_sweep(sweep.write()))).sentence


def test_what_does_as_well_in_a_smaller_file_comes_first(sweep):
    sweep.base(3).values("2", 3, effect=0.003).values("8", 3, lora_bytes=250_000)
    assert sentence(sweep) == "dim 8 does as well as 16 at a quarter the size; 2 is worse."


def test_a_better_value_comes_before_a_worse_one(sweep):
    sweep.base(3).values("2", 3, effect=0.003).values("32", 3, effect=-0.003)
    assert sentence(sweep) == "dim 32 is better than 16 in held-out loss; 2 is worse."


def test_no_difference_is_said_with_what_would_have_been_seen(sweep):
    sweep.base(3).values("8", 3, spread=0.004)
    text = sentence(sweep)
    assert text.startswith("dim 8 shows no difference from 16 above ") and text.endswith(" %.")
    assert "as well" not in text and "equal" not in text


def next_step(sweep) -> str:
    return " ".join(headline(judge(load_sweep(sweep.write()))).details)


def test_two_seeds_are_told_what_more_seeds_would_show(sweep):
    sweep.base(2).values("8", 2, spread=0.004)
    assert re.search(
        r"Next step: 5 seeds instead of 2 would show a difference from [\d.]+ % in held-out loss, "
        r"now from [\d.]+ % \(study\.seeds=5\)\.",
        next_step(sweep),
    )


def test_a_value_is_told_what_to_do_though_the_trend_is_seen_less_clearly(sweep):
    # The trend of values that lie close together varies more than each of them.
    sweep.base(3).values("4", 3, spread=0.002).values("64", 3, spread=-0.002)
    assert "Next step: 5 seeds instead of 3 would show" in next_step(sweep)


def test_more_images_are_proposed_where_seeds_hardly_help(sweep):
    sweep.image_noise = 0.0
    sweep.base(3).values("8", 3, spread=0.0, by_image=0.4)
    text = next_step(sweep)
    assert "Next step: measure on more than 8 images (data.held_out_dir); " in text
    assert "5 seeds instead of 3 would hardly help" in text


def test_one_seed_is_told_to_train_several(sweep):
    sweep.seed_spread = 0.002
    sweep.base(3).value("8")
    assert "Next step: study.seeds=3 trains base and values under three seeds" in next_step(sweep)


def test_rounds_that_were_used_up_are_told_to_allow_more(sweep):
    sweep.sweep_settings = {"seeds": [1234, 1235, 1236], "max_seeds": 4}
    sweep.base(4).values("8", 4, spread=0.004)
    assert re.search(r"\(study\.max_seeds=\d+\)", next_step(sweep))


def test_a_margin_that_is_met_needs_no_more_runs(sweep):
    sweep.base(3).values("8", 3).values("32", 3)
    told = "No more runs are needed: every value is within 2.0 % of the base."
    assert told in next_step(sweep)


def test_what_was_shown_has_no_next_step(sweep):
    sweep.base(3).values("2", 3, effect=0.003).values("32", 3, effect=-0.003)
    assert "Next step" not in next_step(sweep) and "No more runs" not in next_step(sweep)


def test_many_values_are_counted(sweep):
    sweep.base(3)
    for index in range(12):
        sweep.values(str(index), 3, effect=0.003 if index < 8 else -0.003)
    assert sentence(sweep) == "Of 12 values beside 16, 4 are better and 8 worse."


@pytest.mark.parametrize("effects", itertools.product([0.01, -0.01, 0.0, None], repeat=3))
def test_whatever_was_found_takes_fifteen_words_at_most(sweep, effects):
    sweep.base(3)
    for place, effect in enumerate(effects):
        kind = {"spread": 0.01} if effect is None else {"effect": effect}
        sweep.values(f"a_long_name_{place}", 3, **kind)
    text = sentence(sweep)
    assert 0 < count_words(text) <= MOST_WORDS and text.endswith(".")


def test_words_are_counted_as_a_person_does():
    assert count_words("dim 8 shows no difference from 16 above 13.6 %.") == 9


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.25, "at a quarter the size"), (0.51, "at half the size"), (0.58, "at 58 % of the size"),
     (0.97, ""), (2.0, ""), (float("nan"), "")],
)  # fmt: skip
def test_a_share_of_the_file_is_said_in_words(share, words):
    assert file_words(share) == words


def test_a_parameter_is_called_by_its_last_word():
    assert name_of("network.dim") == "dim" and name_of("epochs,data.repeats") == "value"
