"""What a sweep shows on Weights & Biases and in TensorBoard, read back from the files."""

import json
from pathlib import Path

import pytest
from safetensors.numpy import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lora_lab.config import WandbConfig
from lora_lab.loggers.wandb_view import build_view
from lora_lab.study import figures
from lora_lab.study.report.build import build_report
from lora_lab.study.report.comparison import VERDICTS
from lora_lab.study.report.publish import publish_to_tensorboard, publish_to_wandb
from study_sweep_builder import SweepBuilder
from wandb_file import OfflineRun

SETTINGS = WandbConfig(True, "test", None, True, "offline")
BASE, VALUE = "network.dim=16 seed=1234 (base)", "network.dim=8 seed=1234"
NAMES = (BASE, "network.dim=16 seed=1235 (base)", VALUE)


@pytest.fixture(scope="module")
def sweep_dir(tmp_path_factory):
    """A base run and one value whose held-out loss is lowest at the end, published twice."""
    import numpy as np

    sweep = SweepBuilder(tmp_path_factory.mktemp("runs") / "network.dim", epochs=3)
    folder = sweep.base(2).value("8", effect=-0.004).write()
    sweep.images(saves=2)
    sweep.grid(kind="simple")
    (folder / "network.dim=8" / "lora").mkdir()
    for name in ("lora-step00000012", "lora"):
        path = folder / "network.dim=8" / "lora" / f"{name}.safetensors"
        save_file({"weight": np.ones(len(name), np.float32)}, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "DRAW", {"cost": figures.DRAW["cost"]})
        build_report(folder)
    publish_to_wandb(folder, SETTINGS)
    publish_to_tensorboard(folder)
    publish_to_tensorboard(folder)
    return folder


@pytest.fixture(scope="module")
def runs(sweep_dir):
    """(job type, name) -> run."""
    found = [OfflineRun(path) for path in sweep_dir.glob("wandb/offline-run-*/*.wandb")]
    return {(one.run.job_type, one.run.display_name): one for one in found}


def test_a_sweep_is_one_group_with_a_sample_job_a_run_and_a_report(runs):
    assert set(runs) == {*(("sample", name) for name in NAMES), ("report", "network.dim")}
    assert {one.run.run_group for one in runs.values()} == {"network.dim"}


def image_keys(row):
    return {key.rsplit(".", 1)[0] for key in row if key.startswith("images/")}


def test_images_stand_under_the_same_keys_and_steps_in_every_run(runs):
    first, second = (runs["sample", name].history for name in (BASE, VALUE))
    assert set(first) == set(second) == {12, 24}
    for step in first:
        assert image_keys(first[step]) == image_keys(second[step]) != set()


def test_every_image_of_the_history_is_a_file_of_the_run(runs):
    one = runs["sample", BASE]
    paths = [
        value
        for row in one.history.values()
        for key, value in row.items()
        if key.endswith(".path") and key.startswith("images/")
    ]
    assert len(paths) == 6
    assert all((one.path.parent / "files" / path).is_file() for path in paths)


def table_of(artifacts, name):
    """The files of a table's artifact and its content."""
    (table,) = (one for one in artifacts if one.name.endswith(name))
    files = {entry.path: Path(entry.local_path) for entry in table.manifest.contents}
    return files, json.loads(files[f"{name}.table.json"].read_text(encoding="utf-8"))


def test_the_seed_is_a_column_of_every_sample_job(runs):
    columns = [
        {item.key: json.loads(item.value_json) for item in runs["sample", name].run.config.update}
        for name in NAMES
    ]
    assert [one["seed"] for one in columns] == [1234, 1235, 1234]
    assert [one["value"] for one in columns] == ["16", "16", "8"]


def test_the_verdicts_stand_in_a_table_with_effects_and_intervals(runs):
    _, content = table_of(runs["report", "network.dim"].artifacts, "verdicts")
    assert content["columns"] == list(VERDICTS)
    row = dict(zip(VERDICTS, content["data"][0], strict=True))
    assert (row["value"], row["metric"], row["verdict"]) == ("8", "held_out_loss", "better")
    assert float(row["low"]) < float(row["effect"]) < float(row["high"]) < 0


def test_the_table_has_a_row_an_image(runs, sweep_dir):
    """wandb keeps a table as an artifact: its JSON and its images lie in the sweep's folder."""
    artifacts = runs["sample", VALUE].artifacts
    files, content = table_of(artifacts, "images_table")
    assert all(path.is_relative_to(sweep_dir.resolve()) for path in files.values())
    assert content["columns"] == ["value", "step", "prompt", "seed", "base", "image"]
    assert len(content["data"]) == 6
    for value, step, _, seed, base, image in content["data"]:
        assert (value, seed, base) == ("8", 1234, "pocket-graphic") and step in (12, 24)
        assert files[image["path"]].is_file()


def test_the_best_lora_has_its_alias(runs):
    aliases = [set(lora.aliases) for lora in runs["sample", VALUE].artifacts]
    assert [names for names in aliases if "best" in names]


def test_the_report_says_what_the_page_says(runs):
    summary = runs["report", "network.dim"].summary
    assert "8 is better" in summary["sentence"]
    assert summary["network.dim=8/verdict"] == "better"
    assert summary["network.dim=8/held_out_loss/high"] < 0


def test_tensorboard_has_the_images_once_at_their_training_steps(sweep_dir):
    events = EventAccumulator(str(sweep_dir / "network.dim=8" / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Images("images/pocket-graphic/simple")] == [12, 24]


def test_the_saved_view_shows_curves_and_images_of_the_group_alone():
    """The model is what the library would send."""
    pytest.importorskip("wandb_workspaces")
    view = build_view("me", "lora-lab", 'a "group"', ["images/pocket/simple"])
    text = view._to_model().model_dump_json()
    assert "dlr/unet" in text and "images/pocket/simple" in text
    assert 'a \\\\\\"group\\\\\\"' in text or 'a \\"group\\"' in text
