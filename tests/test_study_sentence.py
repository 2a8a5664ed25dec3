"""The first line of a report: short, true, and about what matters."""

import itertools

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
