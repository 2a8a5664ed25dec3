"""A gradient that isn't finite never reaches the optimizer."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lora_lab.data.inputs import SharedInputs
from lora_lab.errors import LabError
from lora_lab.training.module import LoRAModule
from train import train
from train_setup import OPTIMIZER, train_config

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def shared() -> SharedInputs:
    return SharedInputs()


@pytest.fixture
def poison(monkeypatch) -> Callable[..., list[int]]:
    """Put a value into the prediction for one image of chosen steps; returns the steps met."""

    def arrange(steps: set[int], value: float, batch: int = 0) -> list[int]:
        met: list[int] = []
        whole = LoRAModule.training_step

        def step(self: LoRAModule, given: Any, index: int) -> torch.Tensor:
            loss = whole(self, given, index)
            first = given["step"] not in met
            if given["step"] in steps and (first if batch == 0 else not first):
                if value != value:  # a loss of NaN, as from NaN latents
                    self.losses[-1][0] = value
                loss = loss * value
            met.append(given["step"])
            return loss

        monkeypatch.setattr(LoRAModule, "training_step", step)
        return met

    return arrange


@pytest.fixture
def seen(monkeypatch) -> list[dict[str, Any]]:
    """What the optimizer was given: one entry for each step that it took."""
    from lora_lab.training import module

    steps: list[dict[str, Any]] = []
    build = module.build_optimizer

    def spy(*arguments: Any, **named: Any) -> Any:
        optimizer = build(*arguments, **named)
        optimizer.register_step_post_hook(
            lambda o, *_: steps.append(
                {
                    "d": o.param_groups[0].get("d"),
                    "k": o.param_groups[0].get("k"),
                    "finite": all(
                        bool(torch.isfinite(value).all())
                        for state in o.state.values()
                        for value in state.values()
                        if isinstance(value, torch.Tensor)
                    ),
                }
            )
        )
        return optimizer

    monkeypatch.setattr(module, "build_optimizer", spy)
    return steps


def facts(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


@pytest.mark.parametrize("value", [NAN, INF])
def test_by_default_the_first_one_ends_the_run_and_names_the_step(
    value, poison, tmp_path, tiny_base, tiny_person, shared
):
    poison({2}, value)
    with pytest.raises(LabError, match=r"at step 2 is not finite .*max_skipped_steps=0") as caught:
        train(train_config(tiny_base, tiny_person), tmp_path, shared)
    assert value == INF or "the loss of 2_zqx person/" in str(caught.value)
    assert facts(tmp_path)["status"] == "failed" and "not finite" in facts(tmp_path)["error"]
    assert not list((tmp_path / "lora").glob("*.safetensors"))


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", ["dadapt_adam", "adamw"])
def test_steps_are_left_out_as_often_as_allowed(
    name, accumulate, poison, seen, tmp_path, tiny_base, tiny_person, shared
):
    """Also when only one of several accumulated batches is bad; d goes on growing."""
    poison({2}, NAN, batch=0 if accumulate == 1 else 1)
    config = train_config(
        tiny_base,
        tiny_person,
        optimizer=OPTIMIZER if name == "dadapt_adam" else adamw(),
        trainer__max_skipped_steps=1,
        trainer__accumulate_grad_batches=accumulate,
        epochs=2 * accumulate,
    )
    train(config, tmp_path, shared)
    assert facts(tmp_path)["skipped_steps"] == [2] and facts(tmp_path)["steps"] == 6
    assert len(seen) == 5 and all(step["finite"] for step in seen)
    if name == "dadapt_adam":
        assert seen[-1]["k"] == 5 and seen[-1]["d"] > 1e-6
    tensors = load_file(tmp_path / "lora" / "lora.safetensors").values()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["loss/step"] != "" for row in rows] == [True, False, True, True, True, True]
    assert rows[1]["dlr/unet"] == "" and all(row["loss/epoch"] != "nan" for row in rows)


def test_one_more_than_allowed_ends_the_run(poison, tmp_path, tiny_base, tiny_person, shared):
    poison({1, 3}, NAN)
    config = train_config(tiny_base, tiny_person, trainer__max_skipped_steps=1)
    message = r"at step 3 is not finite after steps \[1\] were left out"
    with pytest.raises(LabError, match=message):
        train(config, tmp_path, shared)


def adamw() -> Any:
    from settings import composed

    return composed("optimizer=adamw").optimizer
