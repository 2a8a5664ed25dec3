"""The one door to a run folder: its decisions, and that to ask or to be refused changes nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lora_lab.config import TrainConfig
from lora_lab.errors import ConfigError, LabError
from lora_lab.run_folder import folder as door
from lora_lab.run_folder.folder import Refused, RunFolder, State
from lora_lab.run_folder.locks import LOCK
from lora_lab.run_folder.record import read_facts
from train import train
from train_setup import train_config

INPUTS = {name: name * 16 for name in ("images", "captions", "checkpoint", "vae")}


def inputs(config: TrainConfig) -> dict[str, str]:
    return dict(INPUTS)


def unread(config: TrainConfig) -> dict[str, str]:
    pytest.fail("the inputs were read although the settings differ")


@pytest.fixture
def config(tiny_base, tiny_person) -> TrainConfig:
    return train_config(tiny_base, tiny_person)


def leave(path: Path, config: TrainConfig, *, complete: bool, saved: bool = True) -> None:
    """What a run leaves, without training."""
    run = RunFolder.open(path, config, inputs)
    with run.locked():
        run.begin(dict(INPUTS))
        if saved:
            run.lora.parent.mkdir(exist_ok=True)
            run.lora.write_bytes(b"tensors")
            (path / "last.ckpt").write_bytes(b"state")
        if complete:
            run.complete()


def contents(path: Path) -> dict[str, bytes]:
    files = (file for file in path.rglob("*") if file.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def test_asking_changes_nothing(tmp_path, config):
    assert RunFolder.open(tmp_path / "new", config, unread).state is State.NEW
    assert not (tmp_path / "new").exists()
    leave(tmp_path / "run", config, complete=True)
    before = contents(tmp_path)
    assert RunFolder.open(tmp_path / "run", config, inputs).is_complete
    other = replace(config, seed=7, overwrite=True)
    assert RunFolder.open(tmp_path / "run", other, unread).state is State.REPLACED
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "saved", "state"),
    [
        ({}, True, State.UNFINISHED),
        ({"overwrite": True}, True, State.REPLACED),
        ({}, False, State.NEW),
        ({"seed": 7}, False, State.NEW),
    ],
)
def test_a_run_that_was_broken_off(change, saved, state, tmp_path, config):
    leave(tmp_path, config, complete=False, saved=saved)
    run = RunFolder.open(tmp_path, replace(config, **change), inputs)
    assert run.state is state
    assert (run.checkpoint is not None) == (state is State.UNFINISHED)


def test_overwrite_keeps_the_very_same_complete_run(tmp_path, config):
    leave(tmp_path, config, complete=True)
    run = RunFolder.open(tmp_path, replace(config, overwrite=True, debug=True), inputs)
    assert run.is_complete


Change = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda patch: patch.setattr(door, "hardware", lambda c: "GPU 9"), r"hardware: .* → GPU 9"),
        (
            lambda patch: patch.setattr(door, "versions", lambda c: {"torch": "9"}),
            r"torch: .* → 9",
        ),
        (lambda patch: patch.setitem(INPUTS, "images", "other"), r"images: imagesimag → other"),
        (lambda patch: patch.setattr(door, "code_version", lambda: "x"), "LoRA Lab's own code"),
    ],
)
def test_the_difference_is_named(
    change: Change, reason: str, tmp_path: Path, config: TrainConfig, monkeypatch
) -> None:
    leave(tmp_path, config, complete=True)
    change(monkeypatch)
    monkeypatch.setattr(door, "reuse_key", lambda config, fingerprints: "another")
    with pytest.raises(Refused, match=reason):
        RunFolder.open(tmp_path, config, inputs)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("sweep.json", "holds a sweep"), ("metrics.csv", r"holds metrics\.csv, but no run")],
)
def test_what_is_no_run_is_refused(name, reason, tmp_path, config):
    (tmp_path / name).write_text("{}")
    with pytest.raises(Refused, match=reason):
        RunFolder.open(tmp_path, config, unread)


@pytest.mark.parametrize("made", [True, False])
def test_a_wrong_setting_leaves_no_trace_so_that_the_corrected_command_runs(made, tmp_path, config):
    path = tmp_path / "run"
    if made:
        path.mkdir()
    wrong = replace(config, trainer=replace(config.trainer, precision="16-mixed"))
    with pytest.raises(ConfigError, match="needs a GPU"):
        train(wrong, path)
    assert contents(tmp_path) == {} and path.exists() == made
    late = replace(config, schedule=replace(config.schedule, warmup_steps=999))
    with pytest.raises(ConfigError, match="warmup_steps must be at most 6"):
        train(late, path)
    assert contents(tmp_path) == {}
    assert RunFolder.open(path, config, unread).state is State.NEW


def test_a_failure_is_recorded_in_a_new_folder_and_not_over_a_run(tmp_path, config):
    run = RunFolder.open(tmp_path / "new", config, inputs)
    with pytest.raises(LabError), run.locked():
        raise LabError("an image can't be read")
    facts = read_facts(tmp_path / "new") or {}
    assert (facts["status"], facts["error"]) == ("failed", "an image can't be read")

    leave(tmp_path / "old", config, complete=True)
    before = contents(tmp_path / "old")
    replacing = replace(config, seed=7, overwrite=True)
    run = RunFolder.open(tmp_path / "old", replacing, inputs)
    with pytest.raises(LabError), run.locked():
        raise LabError("an image can't be read")
    assert contents(tmp_path / "old") == before


def test_a_folder_that_another_process_used_meanwhile_is_left_alone(tmp_path, config):
    run = RunFolder.open(tmp_path, config, inputs)
    leave(tmp_path, config, complete=True)
    before = contents(tmp_path)
    with pytest.raises(Refused, match="was used by another process"), run.locked():
        pytest.fail("it was entered")
    assert contents(tmp_path) == before and (tmp_path / LOCK).exists()


def test_what_is_replaced_is_gone_and_nothing_else(tmp_path, config):
    leave(tmp_path, config, complete=True)
    (tmp_path / "notes.txt").write_text("mine")
    run = RunFolder.open(tmp_path, replace(config, seed=7, overwrite=True), inputs)
    with run.locked():
        run.begin(dict(INPUTS))
    assert {LOCK, "notes.txt", "run.json", "config.yaml"} == set(contents(tmp_path))


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_complete_run_is_used_again_only_with_its_very_lora_file(tmp_path, config, damage):
    leave(tmp_path, config, complete=True)
    run = RunFolder.open(tmp_path, config, inputs)
    assert run.is_complete
    run.lora.unlink() if damage == "missing" else run.lora.write_bytes(b"tensorz")
    with pytest.raises(Refused, match="complete but with"):
        RunFolder.open(tmp_path, config, inputs)
    assert RunFolder.open(tmp_path, replace(config, overwrite=True), inputs).state is State.REPLACED


@pytest.mark.parametrize("content", [b"\xff\xfe\xff\nx", b'"' * 300_000 + b"\nx"])
def test_a_damaged_table_is_no_reason_to_fail_when_a_folder_is_opened(tmp_path, config, content):
    leave(tmp_path, config, complete=False, saved=False)
    (tmp_path / "metrics.csv").write_bytes(content)
    assert RunFolder.open(tmp_path, config, inputs).state is State.UNFINISHED
