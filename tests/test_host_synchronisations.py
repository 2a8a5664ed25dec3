"""How often the host waits for the device in a training step, counted without a GPU.

On a GPU each of these makes the host wait: a number or a shape that is read from a tensor, a copy
from the device to the host, and a new tensor of given numbers on the device. A tensor that is sent
to the model's own device can't be told from one that is there already, so it isn't counted: the
batch is the only one, and Lightning sends it asynchronously.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from lora_lab.data.inputs import SharedInputs
from lora_lab.data.loader import PairedLoader
from lora_lab.errors import LabError
from lora_lab.training.module import LoRAModule
from settings import composed
from train import train
from train_setup import OPTIMIZER, train_config

ADAMW = composed("optimizer=adamw").optimizer
EVERY = 4
"""Steps whose figures are read at once."""
aten = torch.ops.aten
READS = {
    *(aten._local_scalar_dense.default, aten.equal.default, aten.is_nonzero.default),
    *(aten.nonzero.default, aten.masked_select.default, aten._unique2.default),
}
ON_THE_HOST = {
    *(torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu),
    *(torch.Tensor.__array__, torch.Tensor.cuda),
}


class Operations(TorchDispatchMode):
    """Counts what reads a tensor, wherever in PyTorch it is asked for."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        by_mask = func is aten.index.Tensor and any(
            one is not None and one.dtype == torch.bool for one in args[1]
        )
        if func in READS or by_mask:
            self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


class Methods(TorchFunctionMode):
    """Counts what no operation stands for where the tensor is on the CPU already."""

    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func, types, args=(), kwargs=None):
        named = kwargs or {}
        copies = func is torch.Tensor.to and any(
            isinstance(one, str) and one == "cpu" for one in (*args[1:], *named.values())
        )
        waits = copies and not named.get("non_blocking", False)
        made = func in (torch.tensor, torch.as_tensor) and named.get("device") is not None
        given = made and not isinstance(args[0], torch.Tensor)
        if func in ON_THE_HOST or waits or given:
            self.counts[func.__name__] += 1
        return func(*args, **named)


@contextmanager
def counting() -> Iterator[Counter[str]]:
    counts: Counter[str] = Counter()
    with Methods(counts), Operations(counts):
        yield counts


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of several steps are read at once."""
    monkeypatch.setattr(LoRAModule, "steps_a_read", property(lambda module: EVERY))


def test_the_counters_see_what_makes_a_gpu_wait():
    ones = torch.ones(3)
    with counting() as counts:
        ones.sum().item()
        bool(ones.all())
        float(ones[0])
        ones.tolist()
        ones.numpy()
        ones.cpu()
        ones.to("cpu")
        ones.nonzero()
        ones[ones > 0]
        torch.equal(ones, ones)
        torch.tensor(1.0, device="cpu")
    assert counts.total() == 11
    with counting() as counts:
        (ones + 1).to(torch.float64).sum()
        ones.to(ones.device)
        ones[torch.arange(2)]
        torch.tensor(1.0)
    assert not counts


def steps_of(config: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[Counter[str]]:
    """What each step counts, from the moment it has its batch until it asks for the next."""
    steps: list[Counter[str]] = []
    deliver = PairedLoader.batch
    running: list[Any] = []

    def batch(*arguments: Any) -> Any:
        if running:
            running.pop().__exit__(None, None, None)
        made = deliver(*arguments)
        running.append(counting())
        steps.append(running[0].__enter__())
        return made

    monkeypatch.setattr(PairedLoader, "batch", batch)
    try:
        train(config, folder, SharedInputs())
    finally:
        running.pop().__exit__(None, None, None)
    return steps


@pytest.mark.parametrize("optimizer", ["adamw", "dadapt_adam"])
def test_a_step_waits_for_nothing_and_every_few_steps_for_their_figures(
    optimizer, as_on_a_gpu, tmp_path, tiny_base, tiny_person, monkeypatch
):
    """At most twice in the steps after which figures are read: the guard's and the row's."""
    config = train_config(
        tiny_base,
        tiny_person,
        optimizer=OPTIMIZER if optimizer == "dadapt_adam" else ADAMW,
        network__train_text_encoder=True,
        trainer__gradient_clip_val=1.0,
        data__batch_size=1,
        save_every=1.0,
        epochs=1,
    )
    steps = steps_of(config, tmp_path, monkeypatch)
    assert len(steps) == 12
    first, *others = steps[:-1]  # the first makes the optimizer's state, the last one saves
    for number, counts in enumerate(others, start=2):
        assert counts.total() <= (2 if number % EVERY == 0 else 0), (number, counts)
    assert first.total() <= 2
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == [str(number) for number in range(1, 13)]
    assert all(row["loss/step"] and row["dlr/unet"] for row in rows)


def test_figures_are_the_same_however_often_they_are_read(
    tmp_path, tiny_base, tiny_person, monkeypatch
):
    config = train_config(tiny_base, tiny_person, data__batch_size=1)
    tables = []
    for every in (1, EVERY, 1000):
        monkeypatch.setattr(LoRAModule, "steps_a_read", property(lambda m, every=every: every))
        train(config, tmp_path / str(every), SharedInputs())
        with (tmp_path / str(every) / "metrics.csv").open(newline="") as file:
            tables.append([{**row, "seconds": None} for row in csv.DictReader(file)])
    assert len(tables[0]) == 24 and tables[0] == tables[1] == tables[2]


@pytest.mark.parametrize("step", [2, 3, 6, 12])
def test_a_loss_that_is_not_finite_ends_the_run_before_anything_is_saved(
    step, as_on_a_gpu, tmp_path, tiny_base, tiny_person, monkeypatch
):
    """Found at the next reading or save, told by its own step; steps 6 and 12 are saves."""
    whole = LoRAModule.training_step

    def poisoned(self: LoRAModule, batch: Any, index: int) -> torch.Tensor:
        loss = whole(self, batch, index)
        if batch["step"] == step:
            self.losses[-1][0] = torch.nan
            loss = loss * torch.nan
        return loss

    monkeypatch.setattr(LoRAModule, "training_step", poisoned)
    config = train_config(tiny_base, tiny_person, data__batch_size=1, epochs=1)
    message = rf"the loss of 2_zqx person/\S+ at step {step} is not finite .*max_skipped_steps=0"
    with pytest.raises(LabError, match=message):
        train(config, tmp_path, SharedInputs())
    saved = {path.name for path in (tmp_path / "lora").glob("*")}
    assert saved == ({"lora-step00000006.safetensors"} if step > 6 else set())
    for table, last in (("metrics.csv", step - 1), ("held_out.csv", 6 if step > 6 else 0)):
        with (tmp_path / table).open(newline="") as file:
            assert max(int(row["step"]) for row in csv.DictReader(file)) == last
