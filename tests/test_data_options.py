"""Options of the data as a whole run sees them."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from lora_lab.text.caption_encoder import CaptionEncoder
from train import train
from train_setup import train_config


@pytest.fixture
def person(tmp_path: Path, tiny_person: Path) -> Path:
    """The tiny person with masks, regularisation images and a long caption."""
    folder = Path(shutil.copytree(tiny_person, tmp_path / "person"))
    images = folder / "train" / "2_zqx person"
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 255
    for path in sorted(images.glob("0?.png"))[:3]:
        Image.fromarray(mask).save(path.with_name(f"{path.stem}.mask.png"))
    reg = folder / "reg" / "1_person"
    reg.mkdir(parents=True)
    for index in range(3):
        Image.new("RGB", (40, 32), (80 * index, 90, 0)).save(reg / f"{index}.png")
    (images / "05.txt").write_text("zqx person, (red:1.4), " + "tag, " * 40, encoding="utf-8")
    return folder


EVERYTHING = {
    "masked_loss": True,
    "prior_loss_weight": 0.5,
    "random_crop": True,
    "color_aug": True,
    "variants": 2,
    "flip": True,
    "trigger": "zqx person",
    "shuffle_caption": True,
    "caption_dropout_rate": 0.2,
    "caption_tag_dropout_rate": 0.2,
    "weighted_captions": True,
    "max_token_length": 150,
    "latents": "sample",
}


def run(base: Path, person: Path, folder: Path, **changes: object) -> dict[str, torch.Tensor]:
    """Trains one epoch and returns the LoRA."""
    data = {f"data__{key}": changes.pop(key) for key in list(changes) if key in EVERYTHING}
    config = train_config(base, person, epochs=1, save_every=1.0, **data, **changes)
    return load_file(train(config, folder).lora)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_everything_at_once_trains_and_is_written_down(tiny_base, person, tmp_path):
    run(tiny_base, person, tmp_path / "run", **EVERYTHING)
    with (tmp_path / "run" / "metrics.csv").open(encoding="utf-8") as file:
        losses = [float(row["loss/step"]) for row in csv.DictReader(file)]
    assert losses and all(0 < loss < 100 for loss in losses)
    with safe_open(tmp_path / "run" / "lora" / "lora.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["ss_num_reg_images"] == "12" and metadata["ss_num_train_images"] == "12"
    assert json.loads(metadata["ss_reg_dataset_dirs"]) == {
        "1_person": {"n_repeats": 4, "img_count": 3}
    }


def test_only_what_the_masks_leave_is_learned(tiny_base, person, tmp_path):
    """Black masks everywhere and no weight on the prior: nothing is left to learn."""
    for path in (person / "train" / "2_zqx person").glob("??.png"):
        Image.new("L", (32, 32), 0).save(path.with_name(f"{path.stem}.mask.png"))
    options = {"masked_loss": True, "prior_loss_weight": 0.0}
    learned = run(tiny_base, person, tmp_path / "run", **options)
    assert all(not bool(t.any()) for name, t in learned.items() if "lora_up" in name)


def test_a_frozen_text_encoder_gives_the_same_bytes_with_and_without_kept_answers(
    tiny_base, person, tmp_path, monkeypatch
):
    options = {"network__train_text_encoder": False, "shuffle_caption": True}
    kept = run(tiny_base, person, tmp_path / "kept", **options)

    def forgetful(clip_skip: int, frozen: bool, **others: Any) -> CaptionEncoder:
        return CaptionEncoder(clip_skip, frozen, keep=False, **others)

    monkeypatch.setattr("lora_lab.training.module.CaptionEncoder", forgetful)
    assert equal(kept, run(tiny_base, person, tmp_path / "fresh", **options))
