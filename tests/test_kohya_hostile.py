"""kohya's files from anybody: what import writes says what was read, and nothing else."""

import json
import re
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from command_line import call
from lora_lab.config.literals import literal, literals
from lora_lab.config.optimizer import OPTIMIZERS
from lora_lab.errors import one_line
from lora_lab.kohya.__main__ import main
from lora_lab.kohya.experiment import experiment_name, experiment_text, record
from lora_lab.kohya.translated import Translation
from lora_lab.kohya.translation import LEFT_OUT

GUI = {"train_batch_size": 1, "network_dim": 4, "learning_rate": 1e-4, "LoRA_type": "Standard"}
LINES = "\n\r\x0b\x0c\x85\u2028\u2029"
texts = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="${}\\:#-[]{},&*!|>'\"%@`~ \tab01eE.+_?" + LINES, max_size=40),
    st.sampled_from(
        [
            *("yes", "null", "1e3", "0x1f", "1_000", ".inf", "2026-01-31", "12:30", "=", "<<"),
            *("${oc.env:HOME}", "\\${a}", "${a", "a: b", "- a", "# a", "@package hydra", "\ud800"),
            "x\nhydra:\n  callbacks: {e: {_target_: os.system}}",
        ]
    ),
)
values = st.one_of(texts, st.integers(), st.booleans(), st.none(), st.lists(texts, max_size=3))


def read(text: str) -> dict[Any, Any]:
    """What Hydra makes of a config file: OmegaConf's own reader, everything resolved."""
    tree = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    assert isinstance(tree, dict)
    return tree


@settings(max_examples=150, deadline=None)
@given(texts)
@example("\\\\${a}")
def test_a_literal_resolves_to_its_text(text):
    tree = {"a": text, "b": [text, {"c": text}]}
    if text != "???":
        assert OmegaConf.to_container(OmegaConf.create(literals(tree)), resolve=True) == tree


def test_a_literal_is_left_alone_where_nothing_would_be_resolved():
    assert literal("a $ \\ {b}") == "a $ \\ {b}"


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries({}, optional={"output_name": texts, "data.dir": texts, "seed": values}),
    st.dictionaries(texts, values, max_size=3),
    st.dictionaries(texts, texts, max_size=3),
    texts,
    texts,
)
def test_what_is_written_composes_to_exactly_the_intended_keys(
    told, arguments, impossible, source, command
):
    found = Translation(settings={**told, "optimizer.args": arguments}, impossible=impossible)
    found.groups["optimizer"] = "adamw"
    text = experiment_text(found, source, f"python {one_line(command)}")
    expected: dict = {"defaults": [{"override /optimizer": "adamw"}]}
    for key, value in sorted(found.settings.items()):
        node = expected
        *above, last = key.split(".")
        for part in above:
            node = node.setdefault(part, {})
        node[last] = value
    if "???" not in str(expected):  # which import leaves out
        assert read(text) == expected
    head = text[: text.index("defaults:")]
    assert all(line.startswith("#") or not line for line in head.splitlines())
    assert head.count("@package") <= 1 + str((impossible, source, command)).count("@package")
    assert not [line for line in head.splitlines()[1:] if line.lstrip("# ").startswith("@")]


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(texts, values, max_size=4), texts, texts)
def test_an_imported_file_holds_settings_of_ours_only(tmp_path, further, name, comment):
    path, out = tmp_path / "it.json", tmp_path / "experiment" / "it.yaml"
    path.write_text(json.dumps({**GUI, "output_name": name, "c": comment, **further}))
    assert main(["import", str(path), "--out", str(out)]) == 0
    tree = read(out.read_text(encoding="utf-8"))
    allowed = {"callbacks", "data", "logger", "model", "network", "objective", "optimizer"}
    allowed |= {"defaults", "epochs", "output_name", "sampling", "save_every", "schedule", "seed"}
    assert set(tree) <= {*allowed, "trainer"}
    for entry in tree["defaults"]:
        ((group, choice),) = entry.items()
        assert group.startswith("override /") and (choice in OPTIMIZERS or choice.isidentifier())


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ({"optimizer_args": "betas=betas=0.9,0.99"}, "optimizer_args: betas"),
        ({"optimizer_args": "betas=0.9"}, "optimizer_args: betas"),
        (
            {"optimizer": "DAdaptAdam", "optimizer_args": "growth_rate=fast"},
            "optimizer_args: growth_rate",
        ),
        ({"network_args": "conv_dim=four"}, "network_args: conv_dim"),
        ({"network_args": "conv_dim=4 conv_alpha=x"}, "network_args: conv_alpha"),
        ({"lr_warmup_steps": "1e999"}, "lr_warmup_steps"),
        ({"min_snr_gamma": "five"}, "min_snr_gamma"),
    ],
)
def test_an_argument_of_another_type_is_told_and_left_out(argument, key, tmp_path, capsys):
    path = tmp_path / "it.json"
    path.write_text(json.dumps({**GUI, "lr_scheduler": "cosine", **argument}))
    assert main(["import", str(path), "--out", str(tmp_path / "experiment" / "it.yaml")]) == 0
    told = capsys.readouterr().out
    assert "Can't be expressed here" in told and key in told and "is no value for" in told


@pytest.mark.parametrize("name", ["optimizer_args", "additional_parameters"])
def test_an_open_quote_is_told_without_the_text(name, tmp_path, capsys):
    path = tmp_path / "it.json"
    path.write_text(json.dumps({**GUI, name: "'--secret betas=0.9"}))
    assert main(["import", str(path), "--out", str(tmp_path / "experiment" / "it.yaml")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path}: {name} can't be parsed (No closing quotation)" in line
    assert "secret" not in line


def test_an_imported_key_can_not_leave_its_comment(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hostile = "x\nhydra:\n  callbacks: {e: {_target_: shutil.copyfile, src: it.json, dst: stolen}}"
    path = tmp_path / f"a{LINES}\x1b[31mb.json"
    path.write_text(json.dumps({**GUI, hostile: "1", "@package hydra": 2, "output_name": "x\n"}))
    assert main(["import", str(path), "--out", "theirs/experiment/it.yaml"]) == 0
    told = capsys.readouterr().out
    assert "\x1b" not in told and "\nhydra:" not in told
    seen = []
    answer = call(
        "--config-dir=theirs",
        "+experiment=it",
        "model.checkpoint=embedded:pocket",
        "data=person",
        "data.dir=embedded:person",
        "hydra.run.dir=run",
        task=seen.append,
    )
    assert not (tmp_path / "stolen").exists()
    assert answer.status in (0, 2) and "hydra" not in answer.err


def test_an_imported_text_is_not_resolved(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "not-to-be-seen")
    path, out = tmp_path / "it.json", tmp_path / "experiment" / "it.yaml"
    name = "${oc.env:MY_API_KEY} \\${oc.env:MY_API_KEY}"
    path.write_text(json.dumps({**GUI, "output_name": name}))
    assert main(["import", str(path), "--out", str(out)]) == 0
    assert read(out.read_text(encoding="utf-8"))["output_name"] == name


@pytest.mark.parametrize(
    "told",
    [
        {"huggingface_token": "hf_secret", "wandb_api_key": "secret", "my_Password": "secret"},
        {"additional_parameters": "--huggingface_token secret --wandb_api_key=secret"},
        {"anything": "hf_" + "s" * 34, "output_name": "0123456789" * 4},
    ],
)
def test_no_token_is_told_or_written(tmp_path, capsys, told):
    path, out = tmp_path / "it.json", tmp_path / "experiment" / "it.yaml"
    path.write_text(json.dumps({**GUI, **told}))
    assert main(["import", str(path), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    told_of = out.with_name("it.import.txt").read_text(encoding="utf-8")
    assert "left out" in told_of
    for secret in ("secret", "s" * 34, "0123456789" * 4):
        assert not [t for t in (shown, told_of, out.read_text(encoding="utf-8")) if secret in t]


def test_an_error_in_further_arguments_does_not_show_them(tmp_path, capsys):
    path = tmp_path / "it.json"
    path.write_text(json.dumps({**GUI, "additional_parameters": "--huggingface_token 'secret"}))
    assert main(["import", str(path)]) == 2
    assert "secret" not in capsys.readouterr().err


def test_the_record_has_a_line_for_each_setting():
    found = Translation(ignored={"a\nb\x1b[2J": "c" * 10_000, "huggingface_token": LEFT_OUT})
    lines = record(found).splitlines()[-3:]
    assert lines[0] == "Without effect (2):" and all(
        line.isprintable() and len(line) < 500 for line in lines
    )


@settings(max_examples=100, deadline=None)
@given(texts)
def test_the_name_of_an_experiment_is_a_word(stem):
    name = experiment_name(stem)
    override = OverridesParser.create().parse_override(f"+experiment={name}")
    assert override.value() == name and re.fullmatch(r"[\w-]+", name, re.ASCII)
