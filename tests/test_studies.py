"""The guide's studies: each composes for both models, and every value passes the checks."""

import re
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from lora_lab.cli.preflight import without_hydra
from lora_lab.cli.sweep_plan import make_plan, spelled
from lora_lab.cli.sweeper import study_of
from lora_lab.config import TrainConfig, check, to_config
from lora_lab.errors import ConfigError
from settings import CONF, composed_tree

ROOT = Path(__file__).resolve().parents[1]
STUDIES = sorted(path.stem for path in (CONF / "study").glob("*.yaml"))
GUIDE = [
    "growth_rate",
    "betas",
    "weight_decay",
    "bias_correction",
    "decouple",
    "epochs_repeats",
    "resolution",
    "aspect_ratio",
    "batch_size",
    "network_rank",
    "network_alpha",
    "total_steps",
    "scheduler",
    "noise_offset",
    "min_snr_gamma",
    "clip_skip",
    "precision",
    "cpu_threads",
    "checkpoint",
    "regularisation",
    "optimizer",
]
SD15 = ["model=sd15", "model.checkpoint=base.safetensors", "data=folder", "data.dir=photos"]


def runs(study: str, *base: str) -> list[list[str]]:
    """The overrides of each value of a study for a base model."""
    config = composed_tree(f"+study={study}", *base, with_hydra=True)
    sweeper = config.hydra.sweeper
    whole = {"params": sweeper.params, "together": sweeper.together}
    found = study_of(whole, sweeper.by_model or {}, config.model.name)
    rows = []
    for key, text in (found.get("params") or {}).items():
        override = OverridesParser.create().parse_override(f"{key}={text}")
        assert override.is_sweep_override(), f"{study}: one value of {key} is no study"
        rows += [[f"{key}={value}"] for value in override.sweep_string_iterator()]
    for row in found.get("together") or []:
        rows.append([f"{key}={spelled(value)}" for key, value in row.items()])
    return rows


def checked(*overrides: str) -> TrainConfig:
    config = to_config(without_hydra(composed_tree(*overrides, with_hydra=True)))
    check(config)
    return config


def test_there_is_a_study_for_each_of_the_guides():
    assert sorted(GUIDE) == STUDIES and len(GUIDE) == 21


@pytest.mark.parametrize(
    "base", [SD15, pytest.param([], marks=pytest.mark.slow)], ids=["sd15", "pocket"]
)
@pytest.mark.parametrize("study", STUDIES)
def test_every_value_of_a_study_passes_the_checks(study, base):
    rows = runs(study, *base)
    assert rows
    configs = [checked(*base, *row) for row in rows]
    plain = checked(*base)
    assert any(config != plain for config in configs)
    assert all(configs[i] != configs[j] for i in range(len(configs)) for j in range(i))


def planned(together: list[dict[str, str]]):
    return make_plan([], lambda o: composed_tree(*o, with_hydra=True), together)


def test_settings_that_change_together_are_one_value_each():
    plan = planned([{"epochs": "30", "data.repeats": "2"}, {"epochs": "12", "data.repeats": "5"}])
    assert (plan.parameter, plan.values) == ("epochs,data.repeats", ("30,2", "12,5"))
    values = [run for run in plan.runs if not run.is_base and run.config.seed == plan.seeds[0]]
    assert [(run.config.epochs, run.config.data.repeats) for run in values] == [(30, 2), (12, 5)]
    assert [run.name for run in values] == [
        "epochs=30,data.repeats=2/seed=1234",
        "epochs=12,data.repeats=5/seed=1234",
    ]


def test_settings_that_change_together_must_be_the_same_in_each_entry():
    with pytest.raises(ConfigError, match="same keys in each entry"):
        planned([{"epochs": "30"}, {"data.repeats": "5"}])


def test_a_base_model_has_values_of_its_own():
    assert runs("network_rank") != runs("network_rank", *SD15)


@pytest.mark.parametrize("study", ["network_rank", "epochs_repeats"])
def test_the_other_family_is_an_option_of_a_study(study):
    for row in runs(study, *SD15):
        assert checked(*SD15, "optimizer.growth_rate=null", *row).optimizer.growth_rate is None


@pytest.mark.parametrize("study", STUDIES)
def test_the_head_of_a_study_tells_command_runs_values_and_finding(study):
    head = (CONF / "study" / f"{study}.yaml").read_text(encoding="utf-8").split("\nhydra:")[0]
    head = " ".join(head.replace("\n#", " ").split())
    for words in (f"+study={study}", "Runs:", "steps", "Values:", "The guide:", "kohya's default"):
        assert words in head, words


def test_the_page_of_studies_names_each_command_once():
    page = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| \[`\+study=(\w+)`\]", page, re.MULTILINE)) == STUDIES
