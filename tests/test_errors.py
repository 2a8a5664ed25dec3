"""Lines of errors: bounded, in one line, and helpful although there are many names."""

import pytest

from command_line import call
from lora_lab.errors import FEW_NAMES, LONGEST_VALUE, LabError, offered, some
from lora_lab.prompts.wildcards import Wildcards

MANY = [f"place {number:03}" for number in range(200)] + ["portrait of a woman"]
HUGE = "x" * 20_000
PERSON = ("model.checkpoint=embedded:pocket", "data.dir=embedded:person")


def test_few_names_are_all_offered_in_their_order():
    assert offered("c", ["b", "a"]) == "b, a"
    assert offered("c", []) == "none"


def test_of_many_names_the_five_nearest_are_offered():
    told = offered("portrait of a womn", MANY)
    assert told.startswith("201 names, of which portrait of a woman, place ")
    assert told.endswith(" come nearest") and told.count(",") == 1 + 4


@pytest.mark.parametrize("given", ["", HUGE, "\x1b[31m\n", None, 3])
def test_what_is_offered_is_one_short_line(given):
    names = [f"{number}\x1b[31m\n{HUGE}" for number in range(FEW_NAMES + 1)]
    for told in (offered(given, names), some(names)):
        assert told.isprintable() and len(told) <= 5 * (LONGEST_VALUE + 4) + 60


def test_some_names_are_told_with_the_number_of_the_others():
    assert some(["a", "b"]) == "a, b"
    assert some(MANY).endswith("place 003, place 004 and 196 more")


@pytest.mark.parametrize(
    ("argument", "next_step"),
    [
        (f"network.dim={HUGE}", "must be a whole number"),
        (f"save_every={HUGE}", "must be a number"),
        (f"output_name={HUGE}", "must be 1 to 100 letters"),
        (f"network={HUGE}", "network must be one of "),
        (f"+study={HUGE}", "study must be one of "),
        (f"{HUGE}=3", "see --help for all settings"),
        (f"+{HUGE}=3", "see --help for all settings"),
        (f"network={{{HUGE}: 1}}", "network"),
        (f"optimizer.args.{HUGE}=3", "see --help for all settings"),
        (f"seed=1,{HUGE}", "add -m to sweep over them"),
        (f"model.checkpoint=embedded:{HUGE}", "it ships embedded:"),
        (f"data.dir={HUGE}", "check the path"),
    ],
    ids=lambda text: text[:24],
)
def test_a_huge_value_leaves_the_whole_sentence_to_be_read(argument, next_step, tmp_path):
    answer = call(*PERSON, f"hydra.run.dir={tmp_path / 'run'}", argument)
    assert answer.status == 2
    assert next_step in answer.errors[0]
    assert all(len(line) < 800 for line in answer.err.splitlines())


def test_settings_of_a_section_are_offered_by_nearness(tmp_path):
    answer = call(*PERSON, f"hydra.run.dir={tmp_path / 'run'}", "sampling=3")
    assert answer.status == 2 and len(answer.errors[0]) < 600


def test_a_missing_wildcard_is_told_with_those_that_come_nearest(tmp_path):
    for name in MANY:
        (tmp_path / f"{name.replace(' ', '-')}.txt").write_text("a", encoding="utf-8")
    with pytest.raises(LabError) as caught:
        Wildcards(tmp_path).lines("portrait-of-a-man")
    assert "of which portrait-of-a-woman" in str(caught.value) and len(str(caught.value)) < 600
    with pytest.raises(LabError) as caught:
        Wildcards(tmp_path).lines(HUGE)
    assert len(str(caught.value)) < 1000
