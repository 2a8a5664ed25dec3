"""Files are whole or not there, and an error of the disk is one line with the next step."""

import errno
import os
from pathlib import Path

import pytest

from lora_lab.errors import LabError
from lora_lab.files import atomic_path, make_folder, write_text


def test_a_full_disk_is_named_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "metrics.csv", "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LabError, match=r"metrics\.csv could not be written .*free some space"):
        write_text(tmp_path / "metrics.csv", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.csv"]
    assert (tmp_path / "metrics.csv").read_text() == "old"


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    for write in (lambda p: write_text(p / "run.json", ""), make_folder):
        with pytest.raises(LabError, match=r"choose another folder: a part of this path is a file"):
            write(tmp_path / "runs" / "dim")


def test_a_folder_that_may_not_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: object, target: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(LabError, match="choose a folder that you may write to"):
        write_text(tmp_path / "config.yaml", "x")
    assert not list(tmp_path.iterdir())


def test_a_failure_inside_the_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "lora.safetensors") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
