"""What a run is told to cost: the arithmetic, and a run that tells it."""

import csv
import json
import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lora_lab.clock import duration
from lora_lab.config import OptimizerConfig
from lora_lab.data.inputs import SharedInputs
from lora_lab.training.callbacks import LoRAExport
from lora_lab.training.forecast import Forecast, Memory, relative_error, seconds_ahead
from settings import composed
from train import train
from train_setup import SCHEDULE, train_config


@pytest.fixture(scope="module")
def shared() -> SharedInputs:
    return SharedInputs()


def optimizer(name: str, *overrides: str) -> OptimizerConfig:
    return composed(f"optimizer={name}", *overrides).optimizer


def test_seconds_follow_the_latent_pixels_without_the_slow_first_step():
    """Steps 2 to 4 take 1, 1.1 and 0.6 s for 10, 10 and 5 pixels: 0.11 s a pixel."""
    ahead = seconds_ahead([9.0, 1.0, 1.1, 0.6], [10, 10, 10, 5], area_left=100)
    assert ahead == pytest.approx(11.7 + 11.0)
    assert seconds_ahead([9.0], [10], area_left=0) == 9.0


def test_memory_grows_with_the_largest_batch_and_never_falls():
    assert Memory(before=100, peak=160).at(2.0) == 220
    assert Memory(before=100, peak=160).at(0.5) == 160


def test_the_line_reads_well():
    forecast = Forecast(480, 0.1416, 68.0, 1_234_000_000, None, 900_000, 14_400_000)
    assert forecast.line() == (
        "estimate: 480 steps of 0.142 s, 1 min 8 s of training; 1.23 GB of memory "
        "(LoRA and optimizer: 14.4 MB for 900000 values)"
    )
    assert duration(3 * 3600 + 250) == "3 h 4 min" and relative_error(110, 100) == 0.1


def test_a_run_estimates_itself_and_compares(tmp_path, tiny_base, tiny_person, shared, caplog):
    """6 steps: told after the fourth, with the truth at the end."""
    with caplog.at_level(logging.INFO):
        train(train_config(tiny_base, tiny_person), tmp_path, shared)
    told = [line for line in caplog.messages if line.startswith("estimate: 6 steps of")]
    assert len(told) == 1 and any("estimate was off by: seconds" in m for m in caplog.messages)
    facts = json.loads((tmp_path / "run.json").read_text())
    estimate, error = facts["estimate"], facts["estimate_error"]
    assert estimate["steps"] == 6 and facts["skipped_steps"] == []
    truth = facts["seconds"]["training"]
    assert error["seconds"] == pytest.approx(estimate["seconds"] / truth - 1, abs=0.02)
    tensors = load_file(tmp_path / "lora" / "lora.safetensors")
    trained = sum(
        t.numel() for k, t in tensors.items() if "alpha" not in k and "layers_2_" not in k
    )
    assert estimate["lora_values"] == trained
    # weights, gradients and DAdaptAdam's three states, 4 bytes each
    assert estimate["lora_bytes"] == 5 * 4 * trained


def test_schedule_free_resumes_exactly_and_saving_more_often_changes_nothing(
    tmp_path, tiny_base, tiny_person, shared, monkeypatch
):
    """Each save puts the averaged weights in and takes them out again."""
    changes: dict[str, Any] = {
        "optimizer": optimizer("schedule_free_adamw"),
        "schedule": replace(SCHEDULE, name="constant"),
    }
    seldom = train_config(tiny_base, tiny_person, save_every=1.0, **changes)
    often = train_config(tiny_base, tiny_person, save_every=1 / 6, **changes)
    train(seldom, tmp_path / "seldom", shared)
    whole = LoRAExport.on_step_end

    def die(self: Any, trainer: Any, module: Any, batch: Any) -> None:
        whole(self, trainer, module, batch)
        if batch["step"] == 3:
            raise RuntimeError("killed")

    monkeypatch.setattr(LoRAExport, "on_step_end", die)
    with pytest.raises(RuntimeError, match="killed"):
        train(often, tmp_path / "often", shared)
    monkeypatch.setattr(LoRAExport, "on_step_end", whole)
    train(often, tmp_path / "often", shared)
    one = load_file(tmp_path / "seldom" / "lora" / "lora.safetensors")
    other = load_file(tmp_path / "often" / "lora" / "lora.safetensors")
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


@pytest.mark.parametrize("name", ["adafactor", "dadapt_lion"])
def test_optimizers_train_a_run_with_their_rates_logged(
    name, tmp_path, tiny_base, tiny_person, shared
):
    """Adafactor has the layers' own tensors, DAdaptLion a flat one with a d."""
    config = train_config(tiny_base, tiny_person, optimizer=optimizer(name), epochs=1)
    train(config, tmp_path, shared)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["dlr/unet"]) > 0 and float(row["dlr/text_encoder"]) > 0 for row in rows)
    assert all((row["d"] != "") == (name == "dadapt_lion") for row in rows)
    up = load_file(tmp_path / "lora" / "lora.safetensors")
    assert all(t.any() for k, t in up.items() if k.endswith("lora_up.weight") and "unet" in k)
