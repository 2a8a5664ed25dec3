"""Two steps of every optimizer in every precision that a CPU has, with all kinds of network.

Each pair of values of two settings occurs in at least one run, and so does the combination that
once ended at its first step: a fused AdamW in mixed precision with clipping.
"""

import csv
import shutil
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import pytest
import torch
from PIL import Image

from ldm_writer import ldm_tensors, narrow_architecture, random_parts, write_ldm
from lora_lab.checkpoint import base_model
from lora_lab.checkpoint.families.sd15 import SD15
from lora_lab.config import OptimizerConfig, check
from lora_lab.data.inputs import SharedInputs
from settings import CONF, composed
from tiny_person import make_tiny_person
from train import train
from train_setup import NETWORK, train_config

NEEDS_A_GPU = ("adamw_8bit",)
WITHOUT_SCHEDULE = ("schedule_free_adamw",)
NOT_IN_BF16 = ("prodigy",)
"""Optimizers that need a LoRA in 32 bits."""

OPTIMIZERS = tuple(
    path.stem
    for path in sorted((CONF / "optimizer").glob("*.yaml"))
    if path.stem not in NEEDS_A_GPU
)
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "bf16-true, LoRA in bf16")
NETWORKS = {
    "lora": {},
    "lora_conv, rslora": {"conv_dim": 2, "conv_alpha": 1.0, "rslora": True},
    "loha": {"name": "loha"},
    "lokr": {"name": "lokr"},
    "dora": {"dora": True},
}
SETTINGS = (OPTIMIZERS, PRECISIONS, tuple(NETWORKS), (1, 2), (0.0, 1.0))
"""Optimizer, precision, network, batches a step, largest norm of the gradients."""


def is_allowed(run: tuple) -> bool:
    """Prodigy is refused with a LoRA in bf16."""
    return run[0] not in NOT_IN_BF16 or run[1] != PRECISIONS[3]


def pairs(run: tuple) -> set[tuple]:
    """The pairs of values that a run covers."""
    return set(combinations(enumerate(run), 2))


def pairwise_runs() -> list[tuple]:
    """A few of the allowed combinations that hold every pair that an allowed one holds."""
    allowed = [run for run in product(*SETTINGS) if is_allowed(run)]
    left = set().union(*(pairs(run) for run in allowed))
    chosen = [("adamw", "bf16-mixed", "lora", 1, 1.0)]
    left -= pairs(chosen[0])
    while left:
        best = max(allowed, key=lambda run: len(pairs(run) & left))
        chosen.append(best)
        left -= pairs(best)
    return chosen


@pytest.fixture(scope="module")
def optimizers() -> dict[str, OptimizerConfig]:
    """Every optimizer as it is composed."""
    guide = ("model=sd15", "model.checkpoint=none")
    found = {}
    for name in OPTIMIZERS:
        target = ("optimizer._target_=torch.optim.NAdam",) if name == "custom" else ()
        found[name] = composed(*guide, f"optimizer={name}", *target).optimizer
    return found


@pytest.fixture(scope="module")
def shared() -> SharedInputs:
    return SharedInputs()


@pytest.fixture(scope="module")
def pair_of_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_person(tmp_path_factory.mktemp("pair"), train=2, held_out=1)


def two_steps_are_taken(folder: Path) -> bool:
    """Whether there are two steps, each with a finite loss and a rate."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["loss/step"]) for row in rows]
    rates = [float(row["dlr/unet"]) for row in rows]
    return len(rows) == 2 and all(0 < loss < 100 for loss in losses) and min(rates) > 0


@pytest.mark.parametrize("run", pairwise_runs(), ids=lambda run: ", ".join(map(str, run)))
def test_two_steps_are_taken(run, tmp_path, tiny_base, pair_of_images, optimizers, shared):
    optimizer, precision, network, accumulated, norm = run
    schedule = "constant" if optimizer in WITHOUT_SCHEDULE else "cosine"
    config = train_config(
        tiny_base,
        pair_of_images,
        optimizer=optimizers[optimizer],
        network=replace(NETWORK, **NETWORKS[network]),
        schedule__name=schedule,
        trainer__precision=precision.partition(",")[0],
        trainer__lora_precision="bf16" if "," in precision else "32",
        trainer__accumulate_grad_batches=accumulated,
        trainer__gradient_clip_val=norm,
        data__batch_size=4 // accumulated,
        callbacks__held_out_loss=False,
        save_every=1.0,
    )
    check(config)
    train(config, tmp_path / "run", shared)
    assert two_steps_are_taken(tmp_path / "run")


@pytest.fixture(scope="module")
def large_pair(pair_of_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same two images with room for a bucket."""
    folder = tmp_path_factory.mktemp("large") / "person"
    shutil.copytree(pair_of_images, folder)
    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            image.resize((128, 128)).save(path)
    return folder


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single file with Stable Diffusion 1.5's layers, each with few channels."""
    folder = tmp_path_factory.mktemp("sd15")
    architecture = narrow_architecture(folder / "architecture")
    tensors = ldm_tensors(random_parts(architecture))
    return write_ldm(folder / "model.safetensors", tensors, torch.float16)


@pytest.mark.parametrize("optimizer", ["dadapt_adam", "adamw"])
def test_sd15_trains_as_it_is_composed(optimizer, tmp_path, sd15, large_pair, monkeypatch):
    """The guide's settings, all but the size of images and LoRA, and the length."""
    narrow = replace(SD15, configs=sd15.parent / "architecture")
    monkeypatch.setattr(base_model, "SD15", narrow)
    config = composed(
        "model=sd15",
        f"model.checkpoint={sd15}",
        f"optimizer={optimizer}",
        "data=folder",
        f"data.dir={large_pair}",
        "data.resolution=128",
        "network.dim=8",
        "epochs=1",
        "trainer.threads=1",
    )
    assert config.trainer.precision == "bf16-mixed" and config.trainer.gradient_clip_val == 1
    train(config, tmp_path / "run")
    assert two_steps_are_taken(tmp_path / "run")
