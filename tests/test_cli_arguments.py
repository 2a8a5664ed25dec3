"""Texts on the command line mean themselves."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lora_lab.cli.quoting import quote, quote_texts
from lora_lab.config import SampleConfig, TrainConfig

TEXTS = [
    "a portrait, (smile:1.2), [hat], {a|b}",
    'it\'s "fine"',
    "back\\slash",
    "ends with a backslash\\",
    "\\'",
    "a\\\\'b",
    "",
    " spaces ",
    "key=value, other=3",
    "ключ ñ 字",
    "null",
]


def value_of(argument: str) -> object:
    return OverridesParser.create().parse_override(argument).value()


@pytest.mark.parametrize("text", TEXTS)
def test_a_quoted_text_is_read_as_itself(text):
    assert value_of(f"prompt={quote(text)}") == text


@pytest.mark.parametrize("text", ["a, b", "(x:1.2)", "[x]", "it's", "f(x)", "a=b, {c}"])
def test_a_prompt_with_syntax_of_its_own_stays_one_text(text):
    (argument,) = quote_texts([f"prompt={text}"], SampleConfig)
    assert value_of(argument) == text


def test_what_hydra_reads_as_text_is_left_alone():
    arguments = ["prompt='a, b'", "lora=some/file.safetensors", "prompt=null", "-m", "run=a b"]
    assert quote_texts([*arguments[:3], arguments[4]], SampleConfig) == [
        *arguments[:3],
        arguments[4],
    ]


def test_settings_that_are_not_text_are_left_alone():
    arguments = ["network.dim=2,8", "optimizer.betas=[0.9,0.99]", "logger=[csv,wandb]"]
    assert quote_texts(arguments, TrainConfig) == arguments


def test_in_a_sweep_commas_stand_between_values():
    arguments = ["-m", "model.checkpoint=a,b"]
    assert quote_texts(arguments, TrainConfig) == arguments
