"""Two processes that train together equal one with the doubled batch."""

import csv
import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from killed_run import run_until, signal_at
from lora_lab.data.inputs import SharedInputs
from lora_lab.errors import LabError
from lora_lab.training import beside
from lora_lab.training.callbacks import DLR
from lora_lab.training.ranks import first_rank, other_ranks
from tiny_person import make_tiny_person
from train import train
from train_setup import train_config

train_beside = beside.train_beside
TOLERANCE = 1e-3
"""Of the largest entry of a tensor: gradients are summed in another order, in 32 bits, and where a
gradient is nearly 0 Adam's division makes that visible. Gradients themselves: 1e-4."""


@pytest.fixture(scope="module")
def person(tmp_path_factory) -> Path:
    """Five images in two buckets, shown twice: batches of 4 leave 2 over, and 1 for the last."""
    folder = make_tiny_person(tmp_path_factory.mktemp("person") / "data", train=5)
    wide = next(folder.glob("train/*/04.png"))
    Image.open(wide).resize((64, 32)).save(wide)
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def column(folder: Path, name: str) -> np.ndarray:
    return np.array([float(row[name]) for row in rows(folder)])


def recording(record: Callable[[int, dict[str, torch.Tensor], float], None]) -> None:
    """Let DLR also record the gradients and d of each step."""
    whole = DLR.on_before_optimizer_step

    def hook(self, trainer, module, optimizer):
        whole(self, trainer, module, optimizer)
        grads = {
            part: torch.cat([tensor.grad.flatten() for tensor in tensors])
            for part, tensors in module.trained.items()
        }
        record(trainer.global_step, grads, float(module.record["d"]))

    DLR.on_before_optimizer_step = hook  # type: ignore[method-assign]


def recording_beside(rank, ready, config, run_dir) -> None:
    """What the second process does; writes down its d of each step."""
    found: list[float] = []
    recording(lambda step, grads, d: found.append(d))
    train_beside(rank, ready, config, run_dir)
    (run_dir / "d_of_the_second.json").write_text(json.dumps(found))


def test_two_processes_equal_one_with_the_doubled_batch(tmp_path, tiny_base, person, monkeypatch):
    """Gradients, LoRA files, loss and rate, with accumulation and with leftovers of buckets."""
    seen: list[dict[str, torch.Tensor]] = []
    monkeypatch.setattr(DLR, "on_before_optimizer_step", DLR.on_before_optimizer_step)
    recording(lambda step, grads, d: seen.append(grads))
    monkeypatch.setattr(beside, "train_beside", recording_beside)
    one = train_config(
        tiny_base,
        person,
        data=replace(train_config(tiny_base, person).data, batch_size=4),
        trainer__accumulate_grad_batches=2,
        optimizer__growth_rate=None,
        optimizer__d0=1e-4,
        network__train_text_encoder=True,
    )
    two = replace(
        one,
        data=replace(one.data, batch_size=2),
        trainer=replace(one.trainer, devices=2),
    )
    train(one, tmp_path / "one", SharedInputs())
    train(two, tmp_path / "two", SharedInputs())
    steps = len(seen) // 2
    for single, together in zip(seen[:steps], seen[steps:], strict=True):
        for part, grad in single.items():
            apart = float((grad - together[part]).abs().max())
            assert apart <= 1e-4 * float(grad.abs().max()) and grad.any()
    assert_same_loras(tmp_path / "one", tmp_path / "two")
    second = json.loads((tmp_path / "two" / "d_of_the_second.json").read_text())
    assert second == column(tmp_path / "two", "d").tolist()
    for name in ("loss/step", "d", "dlr/unet", "dlr/text_encoder"):
        found, wanted = column(tmp_path / "two", name), column(tmp_path / "one", name)
        assert found == pytest.approx(wanted, rel=1e-4)
    facts = json.loads((tmp_path / "two" / "run.json").read_text())
    assert facts["status"] == "complete" and facts["steps"] == len(rows(tmp_path / "two"))
    assert not torch.distributed.is_initialized()


def assert_same_loras(one: Path, two: Path) -> None:
    """The same files, each tensor within the tolerance."""
    names = sorted(path.name for path in (one / "lora").iterdir())
    assert names == sorted(path.name for path in (two / "lora").iterdir())
    moved = 0
    for name in names:
        first, second = load_file(one / "lora" / name), load_file(two / "lora" / name)
        for key, tensor in first.items():
            size = float(tensor.abs().max())
            assert float((tensor - second[key]).abs().max()) <= TOLERANCE * max(size, 1e-4), key
            moved += key.endswith("lora_up.weight") and size > 1e-4
    assert moved > 20


def test_the_failure_of_one_process_ends_all_with_its_cause(tmp_path, tiny_base, person):
    """A rate without bounds makes the next losses infinite or worse."""
    config = train_config(
        tiny_base, person, data__batch_size=2, trainer__devices=2, trainer__accelerator="cpu"
    )
    broken = replace(config, optimizer=replace(config.optimizer, name="adamw", lr=1e30, d0=None))
    broken = replace(broken, optimizer=replace(broken.optimizer, growth_rate=None))
    with pytest.raises(LabError, match="not finite"):
        train(broken, tmp_path, SharedInputs())
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "failed"
    assert not torch.distributed.is_initialized()


def test_a_process_that_cannot_read_its_inputs_is_named():
    with (
        pytest.raises(LabError, match=r"^device 1: RuntimeError: no memory$"),
        other_ranks(first_rank(2), fail_to_start),
    ):
        pytest.fail("training began without it")


def fail_to_start(rank, ready):
    raise RuntimeError("no memory")


@pytest.mark.slow
def test_two_processes_stop_on_a_signal_and_go_on(tmp_path, tiny_base, person):
    config = train_config(tiny_base, person, trainer__devices=2, data__batch_size=2, save_every=1.0)
    shared = SharedInputs()
    train(config, tmp_path / "whole", shared)
    code = run_until(
        signal_at, 2, signal.SIGTERM, config=config, folder=tmp_path / "cut", shared=shared
    )
    assert code != 0 and (tmp_path / "cut" / "last.ckpt").is_file()
    train(config, tmp_path / "cut", shared)
    one = load_file(tmp_path / "whole" / "lora" / "lora.safetensors")
    two = load_file(tmp_path / "cut" / "lora" / "lora.safetensors")
    assert [key for key in one if not torch.equal(one[key], two[key])] == []
