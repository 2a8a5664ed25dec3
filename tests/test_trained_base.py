"""Where settings name no base, a run's LoRAs are drawn on the one that they were trained on."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import sample as command
from lora_lab.config import MergeConfig, SampleConfig
from lora_lab.errors import LabError
from lora_lab.sampling.grids import draw_grids
from lora_lab.sampling.trained_base import with_trained_base
from settings import tiny_sampling

MODEL = """\
model:
  checkpoint: base.safetensors
  prediction_type: v_prediction
  merge:
  - file: style.safetensors
    weight: 0.5
"""


@pytest.fixture
def run(tmp_path) -> Path:
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "config.yaml").write_text(MODEL)
    return tmp_path


@pytest.fixture
def silent(tmp_path):
    """Settings that name no base."""
    config = tiny_sampling(tmp_path / "nowhere")
    return replace(config, checkpoints=[], prediction_type=None, merge=None)


def test_what_is_not_said_is_as_trained(run, silent):
    config = with_trained_base(silent, run)
    assert config.checkpoints == ["base.safetensors"]
    assert config.prediction_type == "v_prediction"
    assert config.merge == [MergeConfig("style.safetensors", 0.5)]


def test_what_is_said_stays(run, silent):
    said = replace(silent, checkpoints=["other"], prediction_type="epsilon", merge=[])
    assert with_trained_base(said, run) == said


def test_the_base_run_of_a_sweep_tells(tmp_path, silent):
    runs = []
    for name, role in (("a", "value"), ("b", "base")):
        (tmp_path / name).mkdir()
        text = MODEL.replace("base.safetensors", f"{name}.safetensors")
        (tmp_path / name / "config.yaml").write_text(text)
        runs.append({"folder": name, "value": name, "role": role, "seed": 1, "error": None})
    (tmp_path / "sweep.json").write_text(json.dumps({"parameter": "x", "runs": runs}))
    assert with_trained_base(silent, tmp_path).checkpoints == ["b.safetensors"]


def test_a_folder_without_settings_tells_nothing(run, silent):
    (run / "config.yaml").unlink()
    assert with_trained_base(silent, run) == silent


def test_a_damaged_list_of_merged_files_is_named(run, silent):
    (run / "config.yaml").write_text("model:\n  merge: [3]\n")
    with pytest.raises(LabError, match=r"config\.yaml: model\.merge must be a list"):
        with_trained_base(silent, run)


def test_sample_draws_the_grids_of_a_run_so(run, silent, monkeypatch):
    asked = []

    def drawn(folder, config, scores):
        asked.append(config)
        return draw_grids.DrawnGrids([], [])

    monkeypatch.setattr(draw_grids, "draw_grids", drawn)
    others = dict.fromkeys(("lora", "png", "rows", "columns", "pages", "prompt", "scores"))
    plain = {"count": 1, "output": "images", "threads": 0, "debug": False}
    command.sample(SampleConfig(run=str(run), sampling=silent, **others, **plain))
    assert asked[0].prediction_type == "v_prediction" and len(asked[0].merge) == 1
