"""LoRAs, textual inversions and wildcards that prompts name, drawn for real."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lora_files import random_lora
from lora_lab.checkpoint.base_model import load_base
from lora_lab.errors import LabError
from lora_lab.images.png_info import read_parameters
from lora_lab.lora_file import read_lora, write_lora
from lora_lab.prompts import LoRATag
from lora_lab.sampling.generate import ImageRequest, draw_settings
from lora_lab.sampling.pipeline import ImageTask, LoRAPipeline
from lora_lab.sampling.prompt_names import PromptNames
from settings import tiny_sampling


@pytest.fixture(scope="module")
def base(tiny_base):
    return load_base(str(tiny_base))


@pytest.fixture
def folder(tmp_path, base):
    """Two LoRAs, a textual inversion and a wildcard."""
    for seed, name in enumerate(("one", "two")):
        write_lora(tmp_path / "loras" / f"{name}.safetensors", random_lora(base, seed=seed), {})
    (tmp_path / "embeddings").mkdir()
    width = base.text_encoder.config.hidden_size
    save_file({"emb_params": torch.ones(2, width)}, tmp_path / "embeddings" / "person.safetensors")
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "hair.txt").write_text("red hair\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def sampling(folder, tiny_base):
    return replace(
        tiny_sampling(tiny_base),
        lora_dir=str(folder / "loras"),
        wildcards_dir=str(folder / "words"),
        embeddings=[],
    )


def draw(folder, base, sampling, *prompts):
    """Pixels, or the problem, of each prompt."""
    lora, weight = folder / "loras" / "one.safetensors", sampling.lora_weight
    settings = draw_settings(sampling)
    tasks = [
        ImageTask(
            folder / f"{n}.png",
            ImageRequest(prompt, "", 7),
            settings,
            lora,
            weight,
            plain_name=True,
        )
        for n, prompt in enumerate(prompts)
    ]
    return [
        outcome.problem or np.asarray(Image.open(outcome.path).convert("RGB")).astype(int)
        for outcome in LoRAPipeline(base, sampling).draw(tasks)
    ]


def test_a_named_lora_is_added_with_its_weight(folder, base, sampling):
    plain, none, twice = draw(
        folder, base, sampling, "the person", "the person<lora:two:0>", "the person<lora:one:1>"
    )
    assert np.abs(plain - none).max() <= 1
    double = replace(sampling, lora_weight=2.0)
    (expected,) = draw(folder, base, double, "the person")
    assert np.abs(twice - expected).max() <= 1 and np.abs(twice - plain).max() > 1
    assert "two: " in read_parameters(folder / "1.png")["Lora hashes"]


def test_each_part_of_a_named_lora_has_its_weight(folder, sampling):
    changes = PromptNames(sampling).changes([LoRATag("two", 0.25, 0.5)])
    tensors = read_lora(folder / "loras" / "two.safetensors")[0]
    assert [weight for _, weight in changes] == [0.5, 0.25]
    assert set(changes[0][0]) | set(changes[1][0]) == set(tensors)
    assert all(key.startswith("lora_te_") for key in changes[1][0])


def test_a_textual_inversion_is_drawn_and_told(folder, base, sampling):
    (plain,) = draw(folder, base, sampling, "the person")
    learned = replace(sampling, embeddings=[str(folder / "embeddings")])
    (inverted,) = draw(folder, base, learned, "the person")
    assert np.abs(plain - inverted).max() > 1


def test_what_can_not_be_found_is_told_and_the_others_are_drawn(folder, base, sampling):
    missing, wrong, plain = draw(
        folder, base, sampling, "<lora:three:1>", "<lora:one:much>", "the person"
    )
    assert "holds no LoRA called three; there are: one, two" in missing
    assert "<lora:one:much>" in wrong
    assert plain.shape == (sampling.height, sampling.width, 3)


def test_names_without_a_folder_tell_which_key_to_set(sampling):
    names = PromptNames(replace(sampling, lora_dir=None, wildcards_dir=None))
    with pytest.raises(LabError, match=r"sampling\.wildcards_dir is null.*__hair__"):
        names.expand("__hair__", 0)
    with pytest.raises(LabError, match=r"sampling\.lora_dir is null.*<lora:one>"):
        names.changes([LoRATag("one", 1, 1)])
    assert PromptNames(sampling).expand("a __hair__", 0) == "a red hair"


def test_a_name_can_not_lead_out_of_its_folder(folder, sampling):
    outside = replace(sampling, lora_dir=str(folder / "words"))
    with pytest.raises(LabError, match="there are: none"):
        PromptNames(outside).changes([LoRATag("../loras/one", 1, 1)])
