"""A sweep.json from elsewhere names no folder that isn't the sweep's."""

import json
import os
import shutil

import pytest

from lora_lab.errors import LabError
from lora_lab.run_folder.saved_loras import find_rows
from lora_lab.study.read.load import load_sweep
from study_sweep_builder import SweepBuilder


@pytest.fixture
def sweep(tmp_path):
    """A sweep two folders deep, and a run of somebody's far above it."""
    folder = SweepBuilder(tmp_path / "downloads" / "sweep").base(2).value("2").write()
    shutil.copytree(folder / "base", tmp_path / "private" / "run")
    return folder


def point(sweep, **changes):
    path = sweep / "sweep.json"
    record = json.loads(path.read_text("utf-8"))
    record["runs"][2] |= changes
    path.write_text(json.dumps(record), "utf-8")


@pytest.mark.parametrize("read", [load_sweep, find_rows])
@pytest.mark.parametrize(
    "told",
    ["../../private/run", "{root}/private/run", "base/../../../private/run", "../../private"],
)
def test_a_run_elsewhere_is_refused_in_one_line(sweep, tmp_path, read, told):
    told = told.replace("{root}", str(tmp_path))
    point(sweep, folder=told)
    with pytest.raises(LabError, match="lists a run outside of its folder") as caught:
        read(sweep)
    assert str(caught.value).count("\n") == 0 and "run the sweep again" in str(caught.value)


def test_a_link_that_leads_elsewhere_is_refused(sweep, tmp_path):
    os.symlink(tmp_path / "private" / "run", sweep / "linked")
    point(sweep, folder="linked")
    with pytest.raises(LabError, match="lists a run outside of its folder, linked"):
        load_sweep(sweep)


@pytest.mark.parametrize("told", ["a\0b", "x" * 5000])
def test_a_folder_that_no_system_has_is_refused_or_missing(sweep, told):
    point(sweep, folder=told)
    try:
        assert load_sweep(sweep).runs[2].status == "missing"
    except LabError as error:
        assert "lists a run outside of its folder" in str(error) and len(str(error)) < 500


def test_a_run_that_a_sweep_beside_it_shares_is_read(sweep, tmp_path):
    shutil.copytree(sweep / "base", tmp_path / "downloads" / "other" / "base")
    point(sweep, folder="../other/base")
    assert load_sweep(sweep).runs[2].status == "complete"
    assert find_rows(sweep)


def test_a_run_farther_away_is_read_if_its_key_is_known(sweep):
    point(sweep, folder="../../private/run", reuse_key="r" * 16)
    assert load_sweep(sweep).runs[2].status == "complete"
    point(sweep, reuse_key="guessed")
    with pytest.raises(LabError, match="lists a run outside"):
        load_sweep(sweep)


def test_a_shared_run_that_is_gone_is_missing(sweep):
    point(sweep, folder="../gone/base")
    assert load_sweep(sweep).runs[2].status == "missing"
