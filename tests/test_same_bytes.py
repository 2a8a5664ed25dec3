"""A run gives the bytes of a loop written by hand; the comparison of revisions sees each bit."""

import csv
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks import same_bytes
from lora_lab.clock import Clock
from lora_lab.data.data_module import LoRADataModule
from lora_lab.data.inputs import Inputs, SharedInputs
from lora_lab.network import inject_lora
from lora_lab.training.module import LoRAModule
from train import train
from train_setup import train_config


@pytest.mark.parametrize(("accumulate", "clip"), [(1, 1.0), (2, 0.0)])
def test_lightning_and_the_callbacks_add_nothing_to_a_plain_loop(
    accumulate, clip, tmp_path, tiny_base, tiny_person
):
    """Loss, backward, clipping, step, schedule, zero: every tensor byte for byte."""
    config = train_config(
        tiny_base,
        tiny_person,
        trainer__accumulate_grad_batches=accumulate,
        trainer__gradient_clip_val=clip,
        network__dropout=0.1,
        optimizer__d0=1e-3,
    )
    lora = train(config, tmp_path).lora
    torch.set_num_threads(1)
    inputs = Inputs.load(config, SharedInputs(), Clock())
    data = LoRADataModule(inputs, config)
    with inject_lora(inputs.base, config.network, config.seed) as network:
        module = LoRAModule(inputs.base, network, config, data.total_steps)
        chosen = module.configure_optimizers()
        tensors = [tensor for tensors in module.trained.values() for tensor in tensors]
        for _ in range(config.epochs):
            for index, batch in enumerate(data.train_dataloader()):
                (module.training_step(batch, index) / accumulate).backward()
                module.on_after_backward()
                if not batch["ends_step"]:
                    continue
                if clip:
                    torch.nn.utils.clip_grad_norm_(tensors, clip)
                chosen["optimizer"].step()
                chosen["lr_scheduler"]["scheduler"].step()
                module.zero_grad()
        expected = network.tensors()
    found = load_file(lora)
    assert found.keys() == expected.keys()
    assert [key for key in found if not torch.equal(found[key], expected[key])] == []
    assert any(t.any() for key, t in found.items() if key.endswith("lora_up.weight"))


def make_run(folder: Path, value: float = 1.0, loss: str = "0.5", seconds: str = "1") -> Path:
    (folder / "lora").mkdir(parents=True)
    save_file({"a": torch.tensor([value, 0.0])}, folder / "lora" / "lora.safetensors")
    for name in ("metrics.csv", "held_out.csv"):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([["step", "loss", "seconds"], ["1", loss, seconds]])
    return folder


def test_the_comparison_sees_a_bit_a_figure_and_a_missing_file(tmp_path):
    one = make_run(tmp_path / "one")
    assert same_bytes.differences(one, make_run(tmp_path / "same", seconds="2")) == []
    (bit,) = same_bytes.differences(one, make_run(tmp_path / "bit", value=1.0000001))
    assert "1 tensors differ, first a" in bit
    figures = same_bytes.differences(one, make_run(tmp_path / "figure", loss="0.6"))
    assert figures == ["one: metrics.csv differs", "one: held_out.csv differs"]
    other = make_run(tmp_path / "other")
    (other / "lora" / "lora.safetensors").rename(other / "lora" / "x.safetensors")
    assert "the LoRA files are" in same_bytes.differences(one, other)[0]


@pytest.mark.slow
def test_this_checkout_trains_the_bytes_of_its_last_commit():
    """Base, LoCon with accumulation and regularisation, resumed Prodigy: minutes."""
    assert same_bytes.compare("HEAD") == []
