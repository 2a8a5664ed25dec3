"""Texts that a shell, a browser, a spreadsheet, a terminal or a config would run: nothing does."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from command_line import call, tiny_arguments
from lora_lab.cli.quoting import quote
from lora_lab.images.fonts import Letters
from lora_lab.images.png_info import read_parameters
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


CHECKPOINTS = (
    *("$(touch ran)", "<img src=x onerror=alert(1)>", "=cmd|' C calc'!A0"),
    "two\nlines \x1b[31m",
)
"""As names of base checkpoints, which are values of a sweep and draw its images."""
SAFE = re.compile(r"[\w.,=+\[\]-]+", re.ASCII)


@pytest.fixture(scope="module")
def swept(tiny_base, tiny_person, tmp_path_factory):
    """A sweep over hostile checkpoints that are drawn on, and what it said."""
    root = tmp_path_factory.mktemp("swept") / "cwd"
    for name in CHECKPOINTS:
        shutil.copytree(tiny_base, root / name)
    quoted = ",".join(quote(name) for name in CHECKPOINTS)
    arguments = [
        *tiny_arguments(tiny_base, tiny_person),
        *("study.seeds=1", "study.reuse_from=null", "sampling.steps=1", "save_every=1.0"),
        *("sampling.prompts.random=[a]", "sampling.random_seeds=[1]", "hydra.sweep.dir=sweep"),
        *(f"sampling.checkpoints=[{quoted}]", f"model.checkpoint={quoted}"),
        "sampling.subject='<script>alert(2)</script>'",
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "-m", *arguments],
        cwd=root,
        env={**os.environ, "MY_API_KEY": SECRET, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    return root, done


def test_a_sweep_over_hostile_checkpoints_ends_well_and_runs_nothing(swept):
    root, done = swept
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    assert not [path for path in root.rglob("*") if path.name == "ran"]
    assert {path.name for path in root.iterdir()} == {*CHECKPOINTS, "sweep"}
    statuses = [
        run["status"] for run in json.loads((root / "sweep/sweep.json").read_text())["runs"]
    ]
    assert statuses == ["complete"] * 5


def test_folders_and_files_of_such_a_sweep_have_plain_names(swept):
    root, _ = swept
    names = {part for path in root.glob("sweep/**/*") for part in path.relative_to(root).parts}
    assert len(names) > 10 and not [name for name in names if not SAFE.fullmatch(name)]


def test_what_such_a_sweep_says_is_whole_lines_without_controls(swept):
    root, done = swept
    logs = [path.read_text(encoding="utf-8") for path in root.glob("sweep/**/*.log")]
    assert len(logs) == 5
    for text in (*logs, done.stderr.decode(errors="replace"), done.stdout.decode()):
        assert not {sign for sign in text if not sign.isprintable()} - {"\n"}
    assert all(line[:2] == "20" for text in logs for line in text.splitlines())


def test_no_cell_of_such_a_sweep_is_a_formula(swept):
    root, _ = swept
    tables = list(root.glob("sweep/**/*.csv"))
    assert len(tables) >= 7
    for path in tables:
        with path.open(newline="", encoding="utf-8") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [cell for cell in cells if cell[:1] in ("=", "+", "@", "\t", "\r")], path
    verdicts = (root / "sweep/report/comparison.csv").read_text(encoding="utf-8")
    assert "'=cmd|" in verdicts


class Elements(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.handlers: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        self.sources += [value or "" for name, value in attrs if name == "src"]


def test_the_report_of_such_a_sweep_holds_names_as_text(swept):
    report = swept[0] / "sweep" / "report"
    page = (report / "index.html").read_text(encoding="utf-8")
    found = Elements()
    found.feed(page)
    assert not found.handlers and "x" not in found.sources
    assert "&lt;img src=x onerror=alert(1)&gt;" in page and "alert(2)</script>" not in page
    twin = (report / "report.md").read_text(encoding="utf-8")
    text = [line for line in twin.splitlines() if not line.startswith("    ")]  # code is literal
    assert len(text) > 20 and not [line for line in text if "<img" in line or "<script" in line]
    assert twin.replace("\n", "").isprintable() and "\x1b" not in page


def test_images_of_such_a_sweep_tell_the_model_in_one_line(swept):
    images = sorted(swept[0].glob("sweep/*/*/images/**/*.png"))
    assert len(images) == 5 * 4 * 3
    for path in images:
        with Image.open(path) as image:
            told = image.info["parameters"]
        assert not {sign for sign in told if not sign.isprintable()} - {"\n"}
        assert told.count("\nSteps: ") == 1 and read_parameters(path)["Model"]
    models = {read_parameters(path)["Model"] for path in images}
    assert "<img src=x onerror=alert(1)>" in models and len(models) == 4


def test_a_line_break_in_a_label_of_a_grid_is_drawn_as_a_space():
    letters = Letters(14)
    assert letters.width("a\r\x85\nb") == letters.width("a   b") > letters.width("ab")


def test_values_that_no_file_name_can_hold_are_refused_in_one_line_each(tmp_path):
    texts = ("<script>alert(1)</script>", "=cmd|'/C calc'!A0", "$(touch ran)", "../x")
    values = ",".join(quote(text) for text in texts)
    answer = call(
        *("-m", "model.checkpoint=embedded:pocket", "data.dir=embedded:person"),
        *(f"hydra.sweep.dir={tmp_path / 'sweep'}", f"output_name={values}"),
    )
    assert answer.status == 2 and not (tmp_path / "sweep").exists()
    assert len(answer.errors) == len(texts)
    assert all(line.startswith("output_name must be 1 to 100 letters") for line in answer.errors)
    assert answer.err.replace("\n", "").isprintable()
