"""Files of others: read within bounds, regular files only, images in a few formats."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from lora_lab.config import read_config
from lora_lab.data.captions import read_caption
from lora_lab.data.images import open_image, upright
from lora_lab.errors import LabError
from lora_lab.files import (
    MAX_DEPTH,
    MAX_YAML_BYTES,
    read_bytes,
    read_json,
    read_text,
    read_yaml,
    sha256_file,
)
from lora_lab.images.opening import MAX_PIXELS, open_picture
from lora_lab.images.png_info import read_parameters, read_recipe
from lora_lab.lora_file import read_lora
from lora_lab.run_folder.record import config_text, read_facts
from lora_lab.run_folder.saved_loras import find_rows
from lora_lab.study.read.load import load_sweep
from settings import composed

BOMB = "a: &a [x, x]\n" + "".join(
    f"b{n}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(24)
)
HOSTILE_YAML = {
    "brackets": "[" * 100_000,
    "mappings": "{a: " * 10_000,
    "aliases": BOMB,
    "tag": "!!python/object/apply:os.system [true]",
    "size": "a: " + "x" * MAX_YAML_BYTES,
    "no text": "\x00",
}


@pytest.fixture
def fifo(tmp_path):
    """A FIFO that nobody writes to: whoever opens it for reading waits without end."""

    def make(name: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)
        return path

    return make


@pytest.mark.parametrize("case", HOSTILE_YAML)
def test_yaml_that_grows_or_nests_is_refused_at_its_first_signs(tmp_path, case, monkeypatch):
    """Its first 200 events are looked at, and nothing is built unless these are all."""
    path = tmp_path / "config.yaml"
    path.write_text(HOSTILE_YAML[case])
    seen, built = [], []
    parse, load = yaml.parse, yaml.load

    def counted(*arguments, **named):
        for event in parse(*arguments, **named):
            seen.append(event)
            yield event

    def noted(*arguments, **named):
        built.append(arguments)
        return load(*arguments, **named)

    monkeypatch.setattr(yaml, "parse", counted)
    monkeypatch.setattr(yaml, "load", noted)
    with pytest.raises((OSError, ValueError)):
        read_yaml(path)
    assert len(seen) <= 200 and bool(built) == (case == "tag")


def test_yaml_is_read_up_to_the_depth_that_is_allowed(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert read_yaml(path) is not None


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "", "\xff", "9" * 10_000])
def test_json_that_is_not_whole_or_nests_is_refused(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError):
        read_json(path)
    assert read_facts(tmp_path) is None


def test_a_file_larger_than_its_kind_is_refused(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_bytes(path, 4)


@pytest.mark.parametrize(
    "read",
    [
        read_text,
        read_json,
        read_yaml,
        open_picture,
        read_parameters,
        open_image,
        sha256_file,
        read_lora,
        read_config,
    ],
)
@pytest.mark.parametrize("device", [False, True])
def test_what_is_no_regular_file_is_refused_at_once(fifo, tmp_path, read, device):
    path = tmp_path / "zero.png"
    if device:
        path.symlink_to("/dev/zero")
    else:
        path = fifo("fifo.png")
    with pytest.raises((OSError, LabError)):
        read(path)


def test_a_run_folder_full_of_fifos_is_read_at_once(fifo, tmp_path):
    for name in ("run.json", "config.yaml", "metrics.csv", "held_out.csv", "lora/a.safetensors"):
        fifo(name)
    assert read_facts(tmp_path) is None and read_recipe(tmp_path / "run.json") is None
    assert find_rows(tmp_path).runs


def test_a_caption_without_an_end_is_told(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x" * (2**20 + 1))
    with pytest.raises(LabError, match=r"a\.txt: the caption can't be read"):
        read_caption(tmp_path / "a.png", ".txt", "person")


def sweep_folder(folder: Path, config: str) -> Path:
    """A sweep of one run, whose config.yaml says what is given."""
    run = folder / "base"
    run.mkdir(parents=True)
    (run / "run.json").write_text('{"status": "complete"}')
    (run / "config.yaml").write_text(config)
    entry = {"name": "base", "folder": "base", "value": "4", "role": "base", "seed": 1}
    record = {"parameter": "network.dim", "values": [], "base_value": "4", "runs": [entry]}
    (folder / "sweep.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("case", HOSTILE_YAML)
def test_a_hostile_config_is_a_note_in_the_report(tmp_path, case):
    (run,) = load_sweep(sweep_folder(tmp_path / "s", HOSTILE_YAML[case])).runs
    assert run.config == {} and any("config.yaml" in note for note in run.notes)


def test_a_runs_config_is_read_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "not-to-be-seen")
    config = composed()
    config.sampling.prompts.simple = "a \\${b} ${oc.env:MY_API_KEY}"
    (tmp_path / "config.yaml").write_text(config_text(config), encoding="utf-8")
    again = read_config(tmp_path / "config.yaml")
    assert again == config


def test_a_config_that_still_holds_logger_csv_is_read(tmp_path):
    tree = yaml.safe_load(config_text(composed()))
    tree["logger"]["csv"] = True
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert read_config(tmp_path / "config.yaml") == composed()


@pytest.mark.parametrize("kind", ["EPS", "TIFF", "PPM", "ICO", "PCX", "PDF"])
def test_an_image_of_another_format_is_refused_whatever_its_name(tmp_path, kind):
    path = tmp_path / "photo.png"
    Image.new("RGB", (16, 16), "red").save(path, format=kind)
    with pytest.raises(LabError, match=r"photo\.png"):
        open_image(path)
    with pytest.raises(OSError):
        open_picture(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "AVIF"])
def test_an_image_is_read_whatever_its_name(tmp_path, kind):
    path = tmp_path / "photo.png"
    Image.new("RGB", (16, 8), "red").save(path, format=kind)
    assert open_image(path).size == (16, 8) and upright(path).size == (16, 8)


def test_an_image_with_too_many_pixels_is_refused_with_the_limit(tmp_path):
    path = tmp_path / "huge.png"
    Image.new("1", (10_000, 10_000)).save(path)
    with pytest.raises(LabError, match=f"10000 x 10000 pixels, at most {MAX_PIXELS}"):
        open_image(path)


def test_an_orientation_that_is_text_turns_nothing(tmp_path):
    path = tmp_path / "a.jpg"
    # Exif's header and one entry: tag 0x0112, type 2 (text), 4 bytes, in place.
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHI4sI", 8, 1, 0x0112, 2, 4, b"six\0", 0)
    Image.new("RGB", (16, 8)).save(path, exif=exif)
    assert open_image(path).size == (16, 8) and upright(path).size == (16, 8)


LARGE = """
import resource, sys
from pathlib import Path
from lora_lab.data.buckets import Placement
from lora_lab.data.images import load_pixels
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_pixels(Path(sys.argv[1]), Placement((64, 64), (0, 0, 64, 64)), flip=False)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_the_largest_image_takes_less_than_a_gigabyte_on_its_way(tmp_path, mode):
    path = tmp_path / "large.png"
    Image.new(mode, (9400, 9400)).save(path)
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 2**30
