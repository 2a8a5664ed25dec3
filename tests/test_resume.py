"""A killed run that goes on gives the same bytes; another run in the folder stays as it is."""

import csv
import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from killed_run import after_the_row, before_the_file, run_until, signal_at
from lora_lab.config import TrainConfig
from lora_lab.data.inputs import SharedInputs
from lora_lab.errors import LabError
from lora_lab.run_folder.folder import Refused
from lora_lab.run_folder.locks import LOCK, Locked, hold
from lora_lab.run_folder.record import read_facts
from lora_lab.training.callbacks.held_out_loss import COLUMNS as HELD_OUT_COLUMNS
from lora_lab.training.callbacks.metrics_csv import keep_rows
from lora_lab.training.callbacks.stop import StopOnSignal
from tiny_person import make_tiny_person
from train import train
from train_setup import train_config

pytestmark = pytest.mark.usefixtures("two_timesteps")

ACCUMULATED = {"trainer__accumulate_grad_batches": 2}
PRODIGY = {"optimizer__name": "prodigy", "optimizer__d_coef": 1.0}


@pytest.fixture(scope="module")
def shared() -> SharedInputs:
    return SharedInputs()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, shared):
    """Uninterrupted runs, made once for each config."""
    made: list[tuple[TrainConfig, Path]] = []

    def run(config: TrainConfig) -> Path:
        for known, folder in made:
            if known == config:
                return folder
        folder = tmp_path_factory.mktemp("whole")
        train(config, folder, shared)
        made.append((config, folder))
        return folder

    return run


def table(folder: Path, name: str = "metrics.csv") -> list[dict[str, str]]:
    """The rows of a CSV file, without their seconds."""
    with (folder / name).open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def assert_same_run(one: Path, other: Path) -> None:
    """The same bytes in every LoRA file, the same rows of figures."""
    names = sorted(path.name for path in (one / "lora").iterdir())
    assert names == sorted(path.name for path in (other / "lora").iterdir())
    for name in names:
        first, second = load_file(one / "lora" / name), load_file(other / "lora" / name)
        assert first.keys() == second.keys()
        assert [key for key in first if not torch.equal(first[key], second[key])] == [], name
    for name in ("metrics.csv", "held_out.csv"):
        assert table(one, name) == table(other, name)


@pytest.mark.parametrize(
    ("point", "argument", "changes"),
    [
        (before_the_file, "lora-step00000004.safetensors", {}),
        (before_the_file, "last.ckpt", {}),
        (before_the_file, "lora.safetensors", {}),
        (after_the_row, 3, {}),
        (after_the_row, 5, PRODIGY),
        (after_the_row, 4, ACCUMULATED),
        (before_the_file, "lora-step00000003.safetensors", PRODIGY | ACCUMULATED),
    ],
)
def test_killed_anywhere_and_resumed_gives_the_same_bytes(
    point, argument, changes, whole, tmp_path, tiny_base, tiny_person, shared
):
    """A save after each second of 6 steps, or after each of the 4 accumulated ones."""
    share = 0.25 if "trainer__accumulate_grad_batches" in changes else 1 / 3
    config = train_config(tiny_base, tiny_person, save_every=share, **changes)
    code = run_until(point, argument, config=config, folder=tmp_path, shared=shared)
    assert code == -signal.SIGKILL
    assert (read_facts(tmp_path) or {})["status"] == "running"
    train(config, tmp_path, shared)
    assert_same_run(whole(config), tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_at_the_next_step_with_its_checkpoint(
    whole, tmp_path, tiny_base, tiny_person, shared, number
):
    """The epoch has 3 steps and the only save is the last: step 2 is neither."""
    config = train_config(tiny_base, tiny_person, save_every=1.0)
    code = run_until(signal_at, 2, number, config=config, folder=tmp_path, shared=shared)
    assert code == 1 and [row["step"] for row in table(tmp_path)] == ["1", "2"]
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    facts = read_facts(tmp_path) or {}
    assert (
        facts["status"] == "failed"
        and f"stopped by signal {number:d} after step 2" in facts["error"]
    )
    train(config, tmp_path, shared)
    assert_same_run(whole(config), tmp_path)


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    stop = StopOnSignal(tmp_path, total_steps=2)
    stop._note(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        stop._note(signal.SIGINT, None)


@pytest.fixture(scope="module")
def killed(tiny_base, tmp_path_factory, shared) -> tuple[TrainConfig, Path]:
    """A run that was killed after its save at step 2, on data of its own."""
    folder = tmp_path_factory.mktemp("killed")
    person = make_tiny_person(folder / "person")
    config = train_config(tiny_base, person, save_every=1 / 3)
    run_until(after_the_row, 3, config=config, folder=folder / "run", shared=shared)
    return config, folder / "run"


@pytest.fixture
def interrupted(killed, tmp_path) -> Iterator[tuple[TrainConfig, Path]]:
    """A copy of the killed run; its data are as before afterwards."""
    config, run = killed
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    data = {path: path.read_bytes() for path in Path(config.data.dir).rglob("*") if path.is_file()}
    yield config, tmp_path
    for path, content in data.items():
        if path.read_bytes() != content:
            path.write_bytes(content)


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refusal(config: TrainConfig, folder: Path, shared: SharedInputs) -> str:
    """What is told; the folder stays as it is."""
    before = contents(folder)
    with pytest.raises(Refused) as caught:
        train(config, folder, shared)
    assert contents(folder) == before
    return str(caught.value)


def test_what_changed_is_named_and_nothing_is_replaced(interrupted, shared):
    config, folder = interrupted
    changed = replace(config, network=replace(config.network, dim=8), seed=7, debug=True)
    text = refusal(changed, folder, shared)
    assert "(network.dim: 4 → 8; seed: 1234 → 7)" in text
    assert text.endswith("or replace it with overwrite=true")
    assert "interrupted run" in refusal(replace(config, resume=False), folder, shared)

    image = next(Path(config.data.dir).glob("train/*/00.png"))
    Image.open(image).transpose(Image.Transpose.ROTATE_90).save(image)
    old = (read_facts(folder) or {})["fingerprints"]["images"]
    text = refusal(config, folder, shared)
    assert f"(images: {old[:10]} → " in text and "captions" not in text

    train(replace(changed, overwrite=True, epochs=1), folder, shared)
    assert [row["step"] for row in table(folder)] == ["1", "2", "3"]
    assert not (folder / "lora" / "lora-step00000006.safetensors").exists()
    before = contents(folder)
    assert train(replace(changed, epochs=1), folder, shared).is_complete
    assert contents(folder) == before


def test_other_libraries_and_code_are_named(interrupted, shared):
    config, folder = interrupted
    facts = json.loads((folder / "run.json").read_text())
    facts["versions"]["torch"] = "1.0"
    facts |= {"code": "0" * 64, "reuse_key": "0" * 64}
    (folder / "run.json").write_text(json.dumps(facts))
    text = refusal(config, folder, shared)
    assert f"(torch: 1.0 → {torch.__version__.split('+')[0]}" in text
    assert "LoRA Lab's own code" in text


def test_two_processes_never_train_in_one_folder(tmp_path, tiny_base, tiny_person, shared):
    with hold(tmp_path / LOCK, "wait"), pytest.raises(Locked, match="is in use by process"):
        train(train_config(tiny_base, tiny_person), tmp_path, shared)
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_rows_after_the_checkpoint_and_half_rows_are_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    keep_rows(path, 0)
    head = path.read_text()
    path.write_text(head + "1,1,0.5\n2,1,0.4\n3,1,0.3\n1")
    keep_rows(path, 2)
    assert [row["step"] for row in table(tmp_path)] == ["1", "2"]
    assert HELD_OUT_COLUMNS[0] == "step"


@pytest.mark.parametrize("damage", ["flipped", "cut", "pickle"])
def test_a_damaged_checkpoint_is_named_and_nobody_is_told_to_trust_it(interrupted, shared, damage):
    config, folder = interrupted
    path = folder / "last.ckpt"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    path.write_bytes(content[: len(content) // 2] if damage == "cut" else content)
    if damage == "pickle":
        torch.save({"state_dict": Path}, path)
    with pytest.raises(LabError, match=r"last\.ckpt is damaged") as caught:
        train(config, folder, shared)
    assert "weights_only" not in str(caught.value) and "overwrite=true" in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"", b"stip,epoch\n1,1\n"])
def test_a_damaged_table_is_named(interrupted, shared, content):
    config, folder = interrupted
    (folder / "metrics.csv").write_bytes(content)
    with pytest.raises(LabError, match=r"metrics\.csv is damaged"):
        train(config, folder, shared)
