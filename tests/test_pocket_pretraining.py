"""Pocket's pretraining from nothing to written checkpoints, with a few steps a stage."""

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lora_lab.checkpoint.base_model import load_base
from lora_lab.checkpoint.embedded import locate
from lora_lab.files import write_json

pytest.importorskip(
    "lora_lab.pocket.draw", reason="drawing needs the extra: pip install -e '.[pocket]'"
)

from lora_lab.pocket import (
    clip,
    dataset,
    evaluate,
    measure,
    pretrain,
    reader,
    subject,
    text_encoder,
    unet,
    vae,
)
from lora_lab.pocket.__main__ import pretrain as run
from lora_lab.pocket.attributes import CLASSES, draw_attributes
from lora_lab.pocket.export import CLIP_NAME, NAMES
from lora_lab.pocket.loop import Fit

CPU = torch.device("cpu")


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets of a few portraits, stages of two steps; tokenizer and person need no change."""
    monkeypatch.setattr(dataset, "SHARD", 20)
    monkeypatch.setattr(pretrain, "HELD_OUT", 4)
    drawings = {name: replace(d, count=1) for name, d in pretrain.DRAWINGS.items()}
    monkeypatch.setattr(pretrain, "DRAWINGS", drawings)
    for module in (clip, text_encoder, vae, unet):
        monkeypatch.setattr(module, "BATCH", 4)
    for function, fit in (
        (clip.train_clip, clip.FIT),
        (text_encoder.train_text_encoder, text_encoder.FIT),
        (vae.train_vae, vae.FIT),
    ):
        few = replace(fit, steps=2, checkpoint_every=1)
        monkeypatch.setattr(function, "__defaults__", (few, *(function.__defaults__ or ())[1:]))
    for name in ("FIT", "GO_ON_FIT", "STYLE_FIT"):
        few = replace(getattr(unet, name), steps=2, checkpoint_every=1)
        monkeypatch.setattr(pretrain, name, few)


def _stages(work: Path) -> pretrain.Stages:
    work.mkdir(exist_ok=True)
    if not (work / "tokenizer").exists():
        shutil.copytree(locate("embedded:pocket") / "tokenizer", work / "tokenizer")
    return pretrain.Stages(work, CPU, processes=1)


@pytest.mark.slow
def test_a_pretraining_killed_in_every_stage_writes_the_same_weights(
    tmp_path: Path, few_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(_stages(tmp_path / "whole"), tmp_path / "models", tmp_path / "person")
    hand_on, handed = pretrain.hand_on, []

    def killed(part: pretrain.PretrainedPart, folder: Path) -> None:
        if folder.name not in handed:
            handed.append(folder.name)
            raise KeyboardInterrupt
        hand_on(part, folder)

    monkeypatch.setattr(pretrain, "hand_on", killed)
    target = tmp_path / "again"
    handed_on = ["clip", "unet-bound", "unet-graphic", "unet-photo", "unet-plain", "vae"]
    for _ in handed_on:
        with pytest.raises(KeyboardInterrupt):
            run(_stages(tmp_path / "killed"), target, tmp_path / "person")
    run(_stages(tmp_path / "killed"), target, tmp_path / "person")
    assert sorted(handed) == handed_on
    files = sorted((tmp_path / "models").rglob("*.safetensors"))
    assert len(files) == 10
    for path in files:
        assert path.read_bytes() == (target / path.relative_to(tmp_path / "models")).read_bytes()
    for name in NAMES.values():
        base = load_base(str(tmp_path / "models" / name))
        assert base.vae.config["scaling_factor"] != 0.18215
    assert (tmp_path / "models" / CLIP_NAME / "config.json").is_file()


def test_the_text_encoder_learns_from_captions_and_leaves_its_clip_alone(tmp_path: Path) -> None:
    tokenizer = load_base("embedded:pocket", parts=()).tokenizer
    torch.manual_seed(1)
    start = clip.build_clip(tokenizer).eval()
    before = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    rng = random.Random("never seen")
    drawn = [draw_attributes(rng) for _ in range(64)]
    told = {}
    for steps in (1, 12):
        fit = Fit(steps=steps, lr=1e-3, warmup=1)
        model = text_encoder.train_text_encoder(start, tokenizer, tmp_path / f"{steps}.pt", fit)
        told[steps] = text_encoder.told_from_captions(model, tokenizer, drawn)
    # Twelve steps find at least what one word decides.
    assert told[12]["framing"] > told[1]["framing"] or told[12]["glasses"] > told[1]["glasses"]
    assert all(torch.equal(before[name], t) for name, t in start.state_dict().items())
    assert not torch.equal(
        model.text_encoder.embeddings.token_embedding.weight,
        start.text_model.embeddings.token_embedding.weight,
    )


def test_the_recipe_s_models_stay_below_52_mb(tmp_path: Path) -> None:
    tokenizer = load_base("embedded:pocket", parts=()).tokenizer
    parts = {"unet": unet.build_unet(), "vae": vae.build_vae(), "clip": clip.build_clip(tokenizer)}
    weights = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    text = sum(p.numel() for p in parts["clip"].text_model.parameters())
    count = 3 * (weights["unet"] + weights["vae"] + text) + weights["clip"]
    files = 4 * 85_000 + 3 * 10_000  # tokenizers, and headers and configs
    assert 2 * count + files < 52_000_000


@pytest.mark.slow
def test_every_figure_is_measured_on_the_written_models(
    tmp_path: Path, few_steps: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "SHARD", 140)
    monkeypatch.setattr(pretrain, "HELD_OUT", 70)
    monkeypatch.setattr(reader, "FIT", replace(reader.FIT, steps=2))
    monkeypatch.setattr(measure, "PROMPTS", 10)
    monkeypatch.setattr(measure, "SUBJECT_PROMPTS", 10)
    monkeypatch.setattr(evaluate, "DRAWING", replace(evaluate.DRAWING, steps=2))
    settings = subject.settings
    monkeypatch.setattr(subject, "settings", lambda asked: settings([*asked, "epochs=1"]))
    stages, models = _stages(tmp_path / "work"), locate("embedded:pocket").parent
    stages.draw()
    figures: dict[str, Any] = measure.measure(stages, models, locate("embedded:person"))
    write_json(tmp_path / "quality.json", figures)
    for name in ("vae_psnr_db", "vae_ssim", "clip_retrieval_of_64", "prompt_following", "kid"):
        assert set(figures[name]) == set(NAMES)
    assert set(figures["told_from_captions"]) == set(CLASSES)
    assert set(figures["reader_accuracy"]) == set(pretrain.DRAWINGS)
    assert 27 < figures["vae_psnr_db"]["plain"] < 40 and 0.8 < figures["vae_ssim"]["plain"] < 1
    assert figures["kid"]["plain"]["generated"] > figures["kid"]["plain"]["drawn"]
    assert set(figures["subject"]) == {"with_lora", "bare"}
    for name in (*NAMES.values(), "subject"):
        assert Image.open(tmp_path / "work" / f"samples-{name}.png").size == (640, 64)
