"""Wrong arguments of sample.py: status 2 and one line, before PyTorch is loaded."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from command_line import call

GOOD = ["lora=good.safetensors", "prompt=a"]
WRONG = [
    (["lora=none", "prompt=a"], "lora: none does not exist"),
    (["lora=folder", "prompt=a"], "lora: folder is no file"),
    (["lora=bad.safetensors", "prompt=a"], "lora: bad.safetensors is not a complete safetensors"),
    (["run=none"], "run: none does not exist"),
    (["run=folder"], "run: folder holds no run or sweep"),
    (["run=bad.png"], "run: bad.png holds no run or sweep"),
    (["png=none.png"], "png: none.png does not exist"),
    (["png=folder"], "png: folder is no file"),
    (["png=bad.png"], "png: bad.png can't be drawn again"),
    ([*GOOD, "scores=none"], "scores: none is no file"),
    ([*GOOD, "output=bad.png"], "output: bad.png is a file"),
    ([*GOOD, "sampling.lora_dir=none"], "sampling.lora_dir: none is no folder"),
    ([*GOOD, "sampling.wildcards_dir=bad.png"], "sampling.wildcards_dir: bad.png is no folder"),
    ([*GOOD, "sampling.embeddings=[none]"], "sampling.embeddings: none does not exist"),
    ([*GOOD, "sampling.checkpoints=[./none]"], "sampling.checkpoints: ./none does not exist"),
    ([*GOOD[:1], f"prompt={'x' * 10_001}"], "prompt must be text of 1 to 10000 characters"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda item: str(item)[-40:])
def test_a_wrong_argument_is_told_before_anything_is_drawn(
    tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    save_file({"a": np.zeros(1, np.float32)}, "good.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"x" * 50)
    (tmp_path / "bad.png").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    answer = call(*arguments, command="sample")
    assert answer.status == 2 and len(answer.errors) == 1
    assert answer.errors[0].startswith(message) and len(answer.errors[0]) < 400
    assert sorted(tmp_path.rglob("*")) == before
