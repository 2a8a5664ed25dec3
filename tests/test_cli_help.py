"""--help: fast, and every setting with its value and its line."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from command_line import call
from lora_lab.cli.help import field_docs
from lora_lab.config import SampleConfig, TrainConfig
from lora_lab.config.convert import field_types, is_group
from settings import CONF

ROOT = Path(__file__).resolve().parents[1]


def all_docs(schema: type) -> list[str]:
    docs = list(field_docs(schema).values())
    for kind in field_types(schema).values():
        docs += all_docs(kind) if is_group(kind) else []
    return docs


@pytest.mark.parametrize(("command", "schema"), [("train", TrainConfig), ("sample", SampleConfig)])
def test_help_shows_the_line_of_every_setting(command, schema):
    answer = call("--help", command=command)
    assert answer.status == 0
    assert not [line for line in all_docs(schema) if line not in answer.out]


def test_help_shows_the_values_that_the_other_arguments_lead_to():
    assert "  dim = 16\n" in call("--help").out
    assert "  dim = 192\n" in call("--help", "model=sd15").out
    assert "  dim = 5\n" in call("-h", "network.dim=5").out


def test_help_lists_what_can_be_chosen():
    lines = call("--help").out.splitlines()
    for choice, group in (("optimizer=dadapt_adam", "optimizer"), ("+study=", "study")):
        names = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        assert f"  {choice:<27}{', '.join(names)}" in lines


def test_help_for_wrong_arguments_says_what_is_wrong():
    answer = call("--help", "network.dimm=3")
    assert (answer.status, answer.out) == (2, "")


def test_help_imports_nothing_heavy():
    program = (
        "import sys; from pathlib import Path; from lora_lab.cli.entry import run_command\n"
        f"run_command(None, 'train', Path({str(CONF)!r}), ['--help'])\n"
        "heavy = {'torch', 'numpy', 'lightning', 'diffusers', 'transformers', 'matplotlib'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@dataclass
class Silent:
    """A settings class that says nothing of its field."""

    value: int


def test_a_field_without_a_line_is_noticed():
    with pytest.raises(ValueError, match="Silent: no line below value"):
        field_docs(Silent)
