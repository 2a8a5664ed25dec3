import json
from pathlib import Path

import pytest

from lora_lab.data.metadata_jsonl import read_metadata
from lora_lab.errors import LabError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    return tmp_path


def write(folder: Path, *lines: object) -> None:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")


def test_captions_come_by_image_and_other_keys_are_left_alone(folder):
    write(folder, {"file_name": "a.png", "text": "zqx,\n ä smile", "width": 3}, "")
    assert read_metadata(folder) == {folder / "a.png": "zqx, ä smile"}


def test_no_file_is_no_caption(folder):
    assert read_metadata(folder) == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"line 1 is not JSON"),
        ("[]", r"line 1 must be an object"),
        ({"file_name": "a.png"}, r"line 1: text must be text"),
        ({"file_name": "a.png", "text": " "}, r"line 1: text must be text"),
        ({"file_name": "c.png", "text": "x"}, r"line 1: 'c.png' is missing"),
        ({"file_name": "../a.png", "text": "x"}, r"line 1: file_name must lie in"),
        ({"file_name": "/a.png", "text": "x"}, r"line 1: file_name must lie in"),
    ],
)
def test_a_wrong_line_is_named(folder, line, message):
    write(folder, line)
    with pytest.raises(LabError, match=message):
        read_metadata(folder)


def test_an_image_named_twice_is_refused(folder):
    write(folder, *[{"file_name": "a.png", "text": text} for text in "xy"])
    with pytest.raises(LabError, match=r"line 2: a\.png is named twice"):
        read_metadata(folder)
