"""Full disks, disks that fill, read-only disks, moved folders, a clock that runs backwards."""

import errno
import os
import stat
import subprocess
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

from killed_run import after_the_row, run_until
from lora_lab.data.inputs import SharedInputs
from lora_lab.errors import LabError
from lora_lab.files import make_folder, write_text
from lora_lab.lora_file import write_lora
from lora_lab.run_folder.record import read_facts
from lora_lab.training.callbacks import MetricsCSV
from lora_lab.training.callbacks.stop import save_checkpoint
from lora_lab.training.module import LoRAModule
from reliability.compare import differences
from train import train
from train_setup import train_config


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one's own: from its size to its folder."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount here")
        if done.returncode:
            pytest.skip("this user may not mount a small disk")
        return folder

    yield mount
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


@pytest.fixture(scope="module")
def shared() -> SharedInputs:
    return SharedInputs()


def fill(disk: Path) -> Path:
    """Writes a file until there is no space left, and returns it."""
    filler = disk / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(descriptor, b"x" * 4096)
    except OSError as error:
        assert error.errno == errno.ENOSPC
    finally:
        os.close(descriptor)
    return filler


def test_a_full_disk_leaves_the_old_file_and_nothing_half_written(small_disk):
    disk = small_disk("256k")
    write_text(disk / "run.json", "old")
    fill(disk)
    for write in (
        lambda: write_text(disk / "run.json", "new" * 10_000),
        lambda: write_lora(disk / "a.safetensors", {"a": torch.ones(10_000)}, {}),
    ):
        with pytest.raises(LabError, match="free some space on this disk"):
            write()
    assert (disk / "run.json").read_text() == "old"
    assert sorted(path.name for path in disk.iterdir()) == ["filler", "run.json"]


def test_a_disk_that_fills_in_the_middle_of_a_run_is_told_and_the_run_goes_on_with_space(
    small_disk, tiny_base, tiny_person, shared, tmp_path, monkeypatch
):
    disk, config = small_disk("32m"), train_config(tiny_base, tiny_person)
    train(config, tmp_path / "whole", shared)
    write = MetricsCSV._write

    def filling(self: MetricsCSV, row: dict[str, float]) -> None:
        write(self, row)
        if row["step"] == 4:
            fill(disk)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsCSV, "_write", filling)
        with pytest.raises(LabError, match="free some space on this disk and start again"):
            train(config, disk / "run", shared)
    (disk / "filler").unlink()
    assert (read_facts(disk / "run") or {})["status"] in ("running", "failed")
    train(config, disk / "run", shared)
    assert differences(tmp_path / "whole", disk / "run") == []


def test_a_disk_that_is_read_only_is_told_before_anything_is_trained(
    small_disk, tiny_base, tiny_person, shared
):
    disk = small_disk("256k")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    told = "Read-only file system.; choose a folder on a disk that can be written"
    for write in (
        lambda: write_text(disk / "run.json", "x"),
        lambda: make_folder(disk / "a"),
        lambda: train(train_config(tiny_base, tiny_person), disk / "run", shared),
        lambda: train(
            train_config(tiny_base, tiny_person, data__cache_dir=str(disk / "cache")),
            disk.parent / "run",
            SharedInputs(bases=shared.bases),
        ),
    ):
        with pytest.raises(LabError, match=told):
            write()


def test_a_broken_off_run_whose_folder_was_moved_goes_on_to_the_same_bytes(
    tiny_base, tiny_person, shared, tmp_path, monkeypatch
):
    config = train_config(tiny_base, tiny_person)
    train(config, tmp_path / "whole", shared)
    run_until(after_the_row, 4, config=config, folder=tmp_path / "run", shared=shared)
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere" / "moved")
    times = iter(range(2_000_000_000, 0, -1_000_000))
    monkeypatch.setattr("time.time", lambda: float(next(times)))  # the clock runs backwards
    train(config, moved, shared)
    assert differences(tmp_path / "whole", moved) == []


def test_a_new_name_is_flushed_with_its_folder(tmp_path, monkeypatch):
    flushed: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        there = (tmp_path / "run.json").exists()
        flushed.append(f"{'folder' if is_folder else 'file'}, {'named' if there else 'unnamed'}")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    write_text(tmp_path / "run.json", "x")
    assert flushed == ["file, unnamed", "folder, named"]


def test_rows_are_on_disk_before_what_goes_on_from_them(tmp_path, monkeypatch):
    flushed: list[tuple[str, bool]] = []
    monkeypatch.setattr(
        "lora_lab.run_folder.folder.flush",
        lambda path: flushed.append((path.name, (tmp_path / "last.ckpt").exists())),
    )

    class Trainer:
        is_global_zero = True
        lightning_module = MagicMock(spec=LoRAModule, unread=MagicMock())

        def save_checkpoint(self, path: Path) -> None:
            path.write_bytes(b"state")

    (tmp_path / "metrics.csv").write_text("step\n1\n")
    (tmp_path / "held_out.csv").write_text("step\n1\n")
    save_checkpoint(Trainer(), tmp_path)
    assert flushed == [("metrics.csv", False), ("held_out.csv", False)]
    Trainer.lightning_module.unread.read.assert_called_once()  # rows that wait on the device
    assert (tmp_path / "last.ckpt").read_bytes() == b"state"
