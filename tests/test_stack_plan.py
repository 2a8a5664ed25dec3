"""Which runs are trained at once, and how many."""

from pathlib import Path

import pytest

from lora_lab.config import TrainConfig
from lora_lab.errors import LabError
from lora_lab.training.stack_memory import StackMemory
from lora_lab.training.stack_plan import make_stacks, stacks_told
from train_setup import train_config


def configs(*changes: dict) -> list[TrainConfig]:
    return [train_config(Path("base"), Path("person"), **one) for one in changes]


def test_runs_are_spread_evenly_over_the_workers():
    stacks, lines = make_stacks(configs(*[{"seed": seed} for seed in range(7)]), None, 2)
    assert [len(stack) for stack in stacks] == [3, 4] and lines == []
    assert sorted(number for stack in stacks for number in stack) == [*range(7)]


def test_a_stack_is_no_larger_than_asked_for():
    stacks, _ = make_stacks(configs(*[{"seed": seed} for seed in range(9)]), 4, 1)
    assert [len(stack) for stack in stacks] == [3, 3, 3]
    stacks, _ = make_stacks(configs({"seed": 1}, {"seed": 2}), 1, 1)
    assert stacks == [[0], [1]]


def test_like_ranks_come_together():
    dims = [32, 2, 16, 2]
    stacks, _ = make_stacks(configs(*[{"network__dim": dim} for dim in dims]), 2, 1)
    assert [[dims[number] for number in stack] for stack in stacks] == [[2, 2], [16, 32]]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"data__resolution": 64}, "data.resolution"),
        ({"data__batch_size": 2}, "data.batch_size"),
        ({"model__checkpoint": "other"}, "model.checkpoint"),
        ({"epochs": 3}, "epochs"),
        ({"trainer__precision": "bf16-mixed"}, "trainer.precision"),
    ],
)
def test_what_changes_the_pass_is_kept_apart_and_told(change, key):
    stacks, lines = make_stacks(configs({}, change, {"seed": 2}), None, 1)
    assert sorted(stacks) == [[0, 2], [1]]
    assert lines == [f"stacks are kept apart by {key}"]


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"network__name": "loha"}, "network=loha"),
        ({"network__dora": True}, "network.dora=true"),
        ({"trainer__gradient_checkpointing": True}, "trainer.gradient_checkpointing=true"),
        ({"trainer__devices": 2}, "trainer.devices=2"),
        ({"callbacks__samples": True}, "callbacks.samples=true"),
    ],
)
def test_what_cannot_be_stacked_is_trained_one_by_one_and_told(change, setting):
    stacks, lines = make_stacks(configs({}, change, change, {"seed": 2}), None, 1)
    assert sorted(stacks) == [[0, 3], [1], [2]]
    assert lines == [f"{setting} can't be stacked: trained one by one"]


def test_the_size_of_a_stack_follows_the_free_memory():
    memory = StackMemory(before=10, a_run=100, free=500)
    assert memory.most == 4 and memory.of(3) == 310
    assert memory.largest(None, waiting=3, default=8) == 3
    assert memory.largest(None, waiting=9, default=8) == 4
    assert memory.largest(2, waiting=9, default=8) == 2
    assert StackMemory(before=10, a_run=100, free=1).largest(None, waiting=3, default=8) == 1


def test_a_stack_larger_than_the_memory_is_refused():
    memory = StackMemory(before=10**9, a_run=2 * 10**9, free=10**10)
    with pytest.raises(LabError, match=r"hydra.launcher.stack=8: 6 runs .* 13.0 GB.*stack=4$"):
        memory.largest(8, waiting=6, default=8)


@pytest.mark.parametrize(
    ("sizes", "at_a_time", "line"),
    [
        ([3, 3], 2, "6 runs in 2 stacks of 3, 2 stacks at a time"),
        ([3, 3, 2], 2, "8 runs in 3 stacks of 3, 3 and 2 runs, 2 stacks at a time"),
        ([3, 3], 8, "6 runs in 2 stacks of 3, 2 stacks at a time"),
        ([4, 4], 1, "8 runs in 2 stacks of 4, 1 stack at a time"),
        ([6], 2, "6 runs in one stack"),
        ([4, 4], None, "8 runs in 2 stacks of 4, as many stacks at a time as there is room for"),
    ],
)
def test_stacks_are_told_plainly(sizes, at_a_time, line):
    assert stacks_told(sizes, at_a_time) == line
