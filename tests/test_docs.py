"""The documentation agrees with the project: settings, links and commands."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from docs import build
from lora_lab.cli.config_guard import take_permissions
from lora_lab.cli.quoting import quote_texts
from lora_lab.config import SampleConfig, TrainConfig
from lora_lab.kohya.names import KOHYA_NAMES
from settings import composed_tree

ROOT = Path(__file__).resolve().parents[1]
SHELL = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def documented_lines() -> list[str]:
    """Every line of shell in the documentation, without its comment."""
    lines = []
    for page in build.pages():
        for block in SHELL.findall(page.read_text(encoding="utf-8")):
            lines += [line.split(" #")[0].strip() for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def documented(script: str) -> list[list[str]]:
    """The arguments of every documented call of a script."""
    calls = [
        shlex.split(line) for line in documented_lines() if line.startswith(f"python {script}")
    ]
    shown = [call[2:] for call in calls if not any(word.startswith("--") for word in call)]
    return [take_permissions(words)[0] for words in shown]


def compose_call(config_name: str, schema: type, arguments: list[str]) -> None:
    """Composes a call's config, once for each value that it sweeps over; Hydra refuses nonsense."""
    arguments = [word for word in quote_texts(arguments, schema) if word != "-m"]
    plain: list[str] = []
    swept: list[list[str]] = [[]]
    for override in OverridesParser.create().parse_overrides(arguments):
        if override.is_sweep_override():
            key = override.get_key_element()
            swept = [[f"{key}={value}"] for value in override.sweep_string_iterator()]
        else:
            plain.append(str(override.input_line))
    for values in swept:
        composed_tree(*plain, *values, name=config_name)


def test_the_page_of_settings_is_fresh():
    for path, text in build.written().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run make docs"


def test_every_setting_has_a_line_of_documentation():
    docs = build.lines_of(build.TrainConfig) | build.lines_of(build.SampleConfig)
    leaves = [*build.leaf_types(build.TrainConfig), *build.leaf_types(build.SampleConfig)]
    assert not [key for key in leaves if not docs.get(key)]


def test_every_setting_has_kohyas_name_or_a_dash():
    missing = [key for key in build.leaf_types(build.TrainConfig) if not KOHYA_NAMES.get(key)]
    assert not missing, f"give these kohya's name, or NONE, in kohya/names.py: {missing}"


def test_every_link_leads_somewhere():
    assert not build.broken_links()


def test_make_help_names_every_target():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    shown = re.findall(r"^ +make ([a-z-]+) +\w", told.stdout, re.MULTILINE)
    assert shown == targets and {"setup", "demo", "test", "bench"} <= set(shown)


def test_documented_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = {line.split()[1] for line in documented_lines() if line.startswith("make ")}
    assert named and named <= targets


@pytest.mark.parametrize(
    ("script", "config_name", "schema"),
    [("train.py", "train", TrainConfig), ("sample.py", "sample", SampleConfig)],
)
def test_documented_commands_compose(script, config_name, schema):
    calls = documented(script)
    assert calls
    for arguments in calls:
        compose_call(config_name, schema, arguments)


def test_a_documented_command_with_a_wrong_key_would_be_seen():
    with pytest.raises(Exception, match="dimm"):
        compose_call("train", TrainConfig, ["network.dimm=3"])
