"""What holds for every caption, whatever it says."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lora_lab.config.data import MAX_REPEATS
from lora_lab.data.captions import (
    drop_tags,
    folder_meaning,
    kept_parts,
    read_caption,
    shuffle_caption,
    training_caption,
    with_trigger,
)
from lora_lab.errors import LabError
from train_setup import data_config

TEXTS = st.text(alphabet="abz ,.()é☃", max_size=40)
PARTS = st.lists(st.text(alphabet="abz é☃", max_size=6), min_size=1, max_size=8)
TRIGGERS = st.sampled_from(["zqx", "zqx person", "zqx, person"])
NAMES = st.tuples(st.integers(0, 9), st.sampled_from(["a", "b"]), st.integers(1, 50))
"""Seed, image and step."""
MANY = settings(max_examples=200, deadline=None, derandomize=True)


def parts_of(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


@MANY
@given(PARTS, st.integers(0, 4), NAMES)
def test_a_shuffle_is_a_permutation_behind_the_kept_parts(parts, kept, names):
    text = ",".join(parts)
    found = parts_of(shuffle_caption(text, kept, *names, 0))
    assert found[:kept] == parts_of(text)[:kept] and sorted(found) == sorted(parts_of(text))


@MANY
@given(PARTS, st.integers(0, 4), st.floats(0, 1), st.floats(0, 1), NAMES)
def test_a_higher_rate_drops_the_same_parts_and_others(parts, kept, one, other, names):
    numbered = [f"{place}{part.strip()}" for place, part in enumerate(parts)]
    low, high = sorted((one, other))
    few, many = (
        [part for part in parts_of(drop_tags(",".join(numbered), kept, rate, *names, 0)) if part]
        for rate in (high, low)
    )
    assert few == [part for part in many if part in few], "in their order, and none that is new"
    assert few[:kept] == numbered[:kept]
    assert parts_of(drop_tags(",".join(numbered), kept, 0.0, *names, 0)) == numbered


@MANY
@given(TEXTS, TRIGGERS, st.integers(0, 3), NAMES)
def test_the_trigger_stands_first_whatever_is_shuffled_or_dropped(text, trigger, kept, names):
    whole = with_trigger(text, trigger)
    assert with_trigger(whole, trigger) == whole and whole.endswith(text)
    config = data_config(
        Path(),
        trigger=trigger,
        keep_tokens=kept,
        shuffle_caption=True,
        caption_tag_dropout_rate=0.7,
    )
    assert kept_parts(whole, config) >= kept
    seed, image, step = names
    assert training_caption(whole, config, seed, image, step, 1, 0).startswith(trigger)


@MANY
@given(TEXTS, NAMES)
def test_a_caption_is_shown_as_it_is_where_nothing_is_asked_for(text, names):
    seed, image, step = names
    assert training_caption(text, data_config(Path()), seed, image, step, 1, 0) == text


@settings(MANY, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=60), st.text(max_size=40).map(str.encode)))
def test_any_file_is_a_caption_of_one_line_or_refused_by_name(content, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    try:
        caption = read_caption(tmp_path / "a.png", ".txt", "person")
    except LabError as error:
        assert str(path) in str(error)
        readable = content.decode("utf-8-sig", errors="replace")
        assert "\ufffd" in readable or not readable.strip()
        return
    first = read_caption(tmp_path / "a.png", ".txt", "person", lines="first")
    words = content.decode("utf-8-sig").split()
    assert caption.text == " ".join(words) and not caption.from_folder
    assert first.text == " ".join(words[: len(first.text.split())]) and first.text


@MANY
@given(st.integers(-5, 2 * MAX_REPEATS), st.text(alphabet="abz _é☃", min_size=1, max_size=12))
def test_a_folder_tells_its_repeats_and_class_or_is_refused(repeats, words):
    folder = Path("train") / f"{repeats}_{words}"
    try:
        assert folder_meaning(folder) == (repeats, words.strip())
    except LabError:
        assert not 1 <= repeats <= MAX_REPEATS
    else:
        assert 1 <= repeats <= MAX_REPEATS
