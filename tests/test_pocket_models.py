"""The weights that ship: read by diffusers and transformers, and as good as their record says."""

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from lora_lab.checkpoint.base_model import load_base
from lora_lab.checkpoint.embedded import locate
from lora_lab.pocket.attributes import compose, draw_attributes
from lora_lab.pocket.evaluate import generate

NAMES = ["pocket", "pocket-graphic", "pocket-photo"]


@pytest.mark.parametrize("name", NAMES)
def test_diffusers_reads_each_checkpoint(name: str) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        locate(f"embedded:{name}"), local_files_only=True, safety_checker=None
    )
    ours = load_base(f"embedded:{name}")
    for part in ("unet", "vae", "text_encoder"):
        theirs = getattr(pipeline, part).state_dict()
        state = getattr(ours, part).state_dict()
        assert state.keys() == theirs.keys()
        assert all(torch.equal(state[key], theirs[key].float()) for key in state)
    text = "portrait of a person, blue hoodie"
    assert ours.tokenizer(text).input_ids == pipeline.tokenizer(text).input_ids


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_fp16_and_finite(name: str) -> None:
    for path in locate(f"embedded:{name}").rglob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118  (safe_open is no dict)
                tensor = file.get_tensor(key)
                assert tensor.dtype == torch.float16, f"{path}: {key}"
                assert torch.isfinite(tensor).all(), f"{path}: {key}"


def test_all_weights_together_stay_below_64_mb() -> None:
    folder = locate("embedded:pocket").parent
    assert sum(path.stat().st_size for path in folder.rglob("*.*")) < 64_000_000


def test_words_of_captions_are_one_or_two_tokens_and_the_trigger_is_its_letters() -> None:
    tokenizer = load_base("embedded:pocket", parts=()).tokenizer
    rng = random.Random(0)
    for _ in range(200):
        text, _ = compose(draw_attributes(rng), rng, keep=1.0)
        assert len(tokenizer(text).input_ids) <= 77
        for word in text.replace(",", " ").replace("-", " ").split():
            pieces = len(tokenizer(word).input_ids) - 2
            assert pieces <= 2, word  # rare words such as "quiff" are two tokens to CLIP, too
    assert len(tokenizer("zqx").input_ids) - 2 == 3


def test_hair_and_garment_keep_their_colours_when_the_prompt_exchanges_them() -> None:
    pairs = [("red", "black"), ("black", "red")] * 3
    wordings = ["a {hair} bob, wearing a {garment} hoodie", "in a {garment} sweater, {hair} afro"]
    prompts = [
        "portrait of a person, gray background, pale skin, "
        + wordings[i % 4 // 2].format(hair=hair, garment=garment)
        for i, (hair, garment) in enumerate(pairs)
    ]
    images = generate(load_base("embedded:pocket"), prompts).astype(int)
    # Left and right of the middle, where a print would be; whether there is more red than green.
    shoulders = np.concatenate([images[:, 58:, 12:20], images[:, 58:, 44:52]], axis=2)
    red = (shoulders[..., 0] - shoulders[..., 1]).mean(axis=(1, 2))
    wanted = np.array([garment == "red" for _, garment in pairs])
    assert ((red > 60) == wanted).sum() >= len(pairs) - 1, red


def test_the_clip_finds_the_image_of_a_caption() -> None:
    draw = pytest.importorskip("lora_lab.pocket.draw", reason="drawing needs the extra `pocket`")
    from transformers import CLIPModel

    from lora_lab.pocket.clip import retrieval_accuracy

    rng = random.Random("never seen")
    drawn = [draw_attributes(rng) for _ in range(64)]
    images = np.stack([draw.render(a) for a in drawn])
    clip = CLIPModel.from_pretrained(locate("embedded:pocket-clip"), dtype=torch.float32).eval()
    tokenizer = load_base("embedded:pocket", parts=()).tokenizer
    assert retrieval_accuracy(clip, tokenizer, images, drawn) >= 0.8


def test_the_autoencoder_is_as_faithful_as_recorded() -> None:
    from lora_lab.pocket.vae import fidelity

    paths = sorted(locate("embedded:person").rglob("*.png"))
    assert len(paths) == 48
    draw = pytest.importorskip("lora_lab.pocket.draw", reason="drawing needs the extra `pocket`")
    rng = random.Random("never seen")
    images = np.stack([draw.render(draw_attributes(rng)) for _ in range(64)])
    recorded = json.loads((locate("embedded:pocket").parent / "quality.json").read_text())
    measured, _ = fidelity(load_base("embedded:pocket", parts=("vae",)).vae, images)
    assert measured == pytest.approx(recorded["vae_psnr_db"]["plain"], abs=1.0)


def test_the_person_is_24_and_24_captioned_pictures_of_64_pixels() -> None:
    for part, count in (("train", 24), ("held_out", 24)):
        paths = sorted((locate("embedded:person") / part).rglob("*.png"))
        assert len(paths) == count
        for path in paths:
            assert Image.open(path).size == (64, 64)
            assert "zqx person" in path.with_suffix(".txt").read_text(encoding="utf-8")
