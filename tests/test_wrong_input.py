"""Every command of the README with every kind of wrong input: its status and exactly one line."""

import contextlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from command_line import CommandResult, call
from lora_lab.cli.ending import run_plain
from lora_lab.kohya.__main__ import main as kohya
from lora_lab.study.__main__ import main as study

LONG = "x" * 300
"""No file can have this name."""
GUI = {"network_dim": 8, "train_batch_size": 1, "network_alpha": 1, "LoRA_type": "Standard"}
FILES = {
    "file": b"text",
    "bad.json": b'{"network_dim": ',
    "list.json": b"[1]",
    "deep.json": b"[" * 100_000,
    "latin.json": b'{"a": "\xe9"}',
    "quote.json": json.dumps(GUI | {"additional_parameters": "--a 'b"}).encode(),
    "bad.toml": b"a = [",
    "deep.toml": b"a = " + b"[" * 100_000,
    "bad.safetensors": b"x" * 50,
    "bad.yaml": b"a: [",
    "list.yaml": b"- 1\n",
    "unknown.yaml": b"network:\n  dimm: 3\n",
    "empty/x": b"",
    "logs/events.out.tfevents.1.x": b"no events",
}
SWEEPS = {"damaged": "{", "listless": '{"parameter": "network.dim", "runs": []}'}
LORA = ["lora=good.safetensors", "prompt=a"]
WRONG: dict[str, list[tuple[list[str], int]]] = {
    "train": [
        *((["network.dimm=3"], 2), (["network.dim=x"], 2), (["network.dim=0"], 2), (["seed=["], 2)),
        *((["~seed"], 2), (["optimizer=adam"], 2), (["--foo"], 2), (["network.dim=1,2"], 2)),
        *((["network.dim=0,2", "-m"], 2), (["-m"], 2), (["+study=none", "-m"], 2), (["x"], 2)),
        *((["=1"], 2), ([""], 2), (["seed=1", "-m", "network.dim=1,2"], 2)),
        *((["data.dir=none"], 2), (["data.dir=file"], 2), (["data.held_out_dir=file"], 2)),
        *(([f"data.dir={LONG}"], 2), ([f"model.checkpoint=./{LONG}"], 2)),
        *((["model.checkpoint=./none"], 2), (["network.weights=none"], 2)),
        *((["hydra.run.dir=file"], 2), (["hydra.foo=1"], 2), (["hydra/launcher=none"], 2)),
        *((["--config-dir=none"], 2), (["--config-dir"], 2), (["--config-name"], 2)),
        *((["allow_packages=;"], 2), (["+experiment=none"], 2), (["output_name=../x"], 2)),
        *(([f"output_name={'x' * 100_000}"], 2), (["output_name=a\nb"], 2)),
        *((["--experimental-rerun=file"], 2), (["--config-path=conf"], 2)),
    ],
    "sample": [
        *(([], 2), (["--foo"], 2), (["run=none"], 2), (["run=file"], 2), (["run=empty"], 2)),
        *((["lora=none", "prompt=a"], 2), (["lora=bad.safetensors", "prompt=a"], 2)),
        *((["png=file"], 2), ([f"png={LONG}"], 2), (["run=a", *LORA], 2), ([*LORA, "count=0"], 2)),
        *(([*LORA, "sampling.steps=0"], 2), ([*LORA, "sampling.width=100000"], 2)),
        *(([*LORA, "sampling.sampler=x"], 2), ([*LORA, "output=file"], 2)),
        *(([*LORA, "sampling.checkpoints=[./none]"], 2), ([*LORA, "-m"], 2)),
    ],
    "kohya": [
        *(([], 2), (["foo"], 2), (["import"], 2), (["import", "none.json"], 2), (["--foo"], 2)),
        *((["import", "empty"], 2), (["import", "file"], 2), (["import", f"{LONG}.json"], 2)),
        *((["import", name], 2) for name in FILES if name.split(".")[-1] in ("json", "toml")),
        *((["import", "bad.safetensors"], 2), (["import", "good.safetensors"], 2)),
        *((["export", "none"], 2), (["export", "empty"], 2), (["export", LONG], 2)),
        *((["export", name], 2) for name in FILES if name.endswith(".yaml")),
    ],
    "study": [
        *(([], 2), (["none"], 2), (["file"], 2), (["empty"], 2), ([LONG], 2), (["--foo", "a"], 2)),
        *((["damaged"], 1), (["listless"], 1), (["a", "b"], 2), (["empty", "--metrics"], 1)),
        *((["damaged", "--blind", "none"], 1), (["empty", "--out", "x"], 2)),
        *((["--kohya", "none"], 2), (["--kohya", "empty"], 2), (["--kohya", "logs"], 2)),
        *((["--kohya", "logs", "--metrics"], 2), (["--kohya", LONG], 2), (["--blind"], 2)),
    ],
}  # fmt: skip
CASES = [(command, *row) for command, rows in WRONG.items() for row in rows]


def answer_of(command: str, arguments: list[str]) -> CommandResult:
    """What a command says, run in this process."""
    if command in ("train", "sample"):
        return call(*arguments, command=command)
    main = {"kohya": kohya, "study": study}[command]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = run_plain(lambda: main(arguments))
        except SystemExit as stop:
            assert isinstance(stop.code, int)
            status = stop.code
    return CommandResult(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The files that the cases name; no case may add one."""
    root = tmp_path_factory.mktemp("wrong")
    for name, content in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    for name, record in SWEEPS.items():
        (root / name).mkdir()
        (root / name / "sweep.json").write_text(record)
    save_file({"a": np.zeros(1, np.float32)}, root / "good.safetensors")
    return root


@pytest.mark.parametrize(
    ("command", "arguments", "status"), CASES, ids=lambda item: str(item)[:40].replace("/", "_")
)
def test_wrong_input_gets_its_status_and_exactly_one_line(
    folder, monkeypatch, command, arguments, status
):
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    answer = answer_of(command, arguments)
    assert answer.status == status
    assert answer.err.startswith("error: ") and answer.err.count("\n") == 1, answer.err
    assert len(answer.err) < 1100 and "Traceback" not in answer.err and answer.out == ""
    assert "debug" not in answer.err, "nobody foresaw it"
    assert sorted(folder.rglob("*")) == before


def test_help_of_the_commands_without_a_config_is_not_an_error():
    for command in ("kohya", "study"):
        answer = answer_of(command, ["--help"])
        assert answer.status == 0 and answer.err == "" and "usage" in answer.out


def test_a_folder_that_may_not_be_written_is_told_by_an_import(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps(GUI))
    (tmp_path / "experiment").write_text("a file in its way")
    answer = answer_of("kohya", ["import", "a.json"])
    assert answer.status == 1 and answer.err.count("\n") == 1
    assert answer.err.startswith(f"error: experiment{os.sep}") or "experiment could" in answer.err
