"""Texts that a shell, a browser, a spreadsheet, a terminal or a config would run: nothing does."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from command_line import tiny_arguments
from lora_lab.cli.quoting import quote
from tiny_person import draw_portrait

ROOT = Path(__file__).resolve().parents[1]
SECRET = "sk-4f1d2c7a9b"
TEXTS = (
    *("../../x", "$(touch ran)", "`touch ran`", "{{7*7}}", "<script>alert(1)</script>"),
    *("${oc.env:MY_API_KEY}", "=cmd|' /C calc'!A0", "\x1b[31mred\x1b[0m", "two\rlines", "a\0b"),
)
"""As captions."""
NAMES = tuple(text.replace("/", "|").replace("\0", "\n") for text in TEXTS)
"""As names of files."""
PLACE = "a b'c\"d=e, ünï [猫]"
"""A folder's name that no shell likes."""


@pytest.fixture(scope="module")
def trained(tiny_base, tmp_path_factory):
    """A run in a hostile place, on hostile data, in a bare environment, and what it said."""
    root = tmp_path_factory.mktemp("hostile")
    images = root / PLACE / "data" / "train" / "1_$(touch ran) {{7*7}}"
    images.mkdir(parents=True)
    for number, (name, text) in enumerate(zip(NAMES, TEXTS, strict=True)):
        Image.fromarray(draw_portrait((20 * number, 90, 90), 0)).save(images / f"{name}.png")
        (images / f"{name}.txt").write_text(text, encoding="utf-8")
    (root / "cwd").mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    missing = str(root / "missing")
    environment = {
        **kept,
        **{"LANG": "C", "LC_ALL": "C", "HOME": missing, "TMPDIR": missing, "MY_API_KEY": SECRET},
        **{"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "WANDB_API_KEY": SECRET},
    }
    run = root / PLACE / "run"
    arguments = [
        *tiny_arguments(tiny_base, root / PLACE / "data"),
        *(f"hydra.run.dir={quote(str(run))}", "sampling.subject=<script>alert(2)</script>"),
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        **{"cwd": root / "cwd", "env": environment},
        capture_output=True,
        check=False,
    )
    return root, run, done


def test_a_run_in_a_hostile_place_without_a_home_ends_well(trained):
    _, run, done = trained
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    assert done.stdout.decode().rstrip("\n").endswith(f"are in {run}")
    assert (run / "lora" / "lora.safetensors").is_file()


def test_nothing_ran_and_nothing_was_written_elsewhere(trained):
    root, run, _ = trained
    assert not [path for path in root.rglob("*") if path.name == "ran"]
    assert list((root / "cwd").iterdir()) == []
    assert {path.name for path in root.iterdir()} <= {PLACE, "cwd", "missing"}
    kept = [path.relative_to(root / "missing").parts[0] for path in root.glob("missing/*")]
    assert set(kept) <= {".cache", ".config"}, "libraries keep theirs in a home that they make"
    assert sorted(path.name for path in run.parent.iterdir()) == ["data", "run"]


def test_no_secret_of_the_environment_is_in_any_output(trained):
    _, run, done = trained
    written = [path for path in run.rglob("*") if path.is_file()]
    assert len(written) >= 6
    told = [done.stdout, done.stderr, *(path.read_bytes() for path in written)]
    assert not [text for text in told if SECRET.encode() in text]


def test_no_line_of_log_or_terminal_moves_a_cursor_or_is_broken(trained):
    _, run, done = trained
    log = (run / "train.log").read_text(encoding="utf-8")
    for text in (log, done.stderr.decode(errors="replace")):
        assert text and not {sign for sign in text if not sign.isprintable()} - {"\n"}
    assert all(line[:2] == "20" for line in log.splitlines()), "each line begins with its time"


def test_no_cell_of_a_table_is_a_formula(trained):
    _, run, _ = trained
    for path in run.glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert cells and not [cell for cell in cells if cell[:1] in ("=", "@", "\t", "\r")]
