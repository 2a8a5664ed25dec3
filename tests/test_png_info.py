"""What is written into PNG files, and read from ours and A1111's."""

import json
from dataclasses import asdict, replace

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lora_lab.errors import LabError
from lora_lab.images.png_info import (
    CHUNK,
    ImageRecipe,
    parameters_text,
    parse_parameters,
    read_parameters,
    read_recipe,
    write_image,
)

RECIPE = ImageRecipe(
    prompt="photo of zqx person, (smile:1.2)",
    negative="blurry, low quality",
    steps=25,
    sampler="DPM++ 2M Karras",
    guidance=7.0,
    seed=1234,
    width=768,
    height=512,
    clip_skip=2,
    model="dreamshaper_8",
    model_hash="879db523c3",
    lora="zqx",
    lora_hash="1a2b3c4d5e6f",
    lora_weight=0.8,
    names={"other": "aaaabbbbcccc", "embedding:style": "ddddeeeeffff"},
    lora_digest="0123456789abcdef",
    vae_hash="abcdefabcd",
    batch_place=1,
    batch_size=2,
    threads=2,
    torch="2.13.0",
)
# A1111's own format, as FORMATS and its users' files show it.
A1111 = """a castle, (night:1.2)
second line
Negative prompt: bad, ugly
Steps: 25, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1234, Size: 768x768, \
Model hash: 879db523c3, Model: dreamshaper_8, Clip skip: 2, \
Lora hashes: "name: 1a2b3c4d5e6f, other: 0f", Version: v1.6.0"""


def test_the_parameters_read_like_a1111s():
    assert parameters_text(RECIPE) == (
        "photo of zqx person, (smile:1.2) <lora:zqx:0.8>\n"
        "Negative prompt: blurry, low quality\n"
        "Steps: 25, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1234, Size: 768x512, "
        "Model hash: 879db523c3, Model: dreamshaper_8, Clip skip: 2, RNG: CPU, "
        'Lora hashes: "other: aaaabbbbcccc, zqx: 1a2b3c4d5e6f"'
    )


def test_a1111s_parameters_are_read():
    fields = parse_parameters(A1111)
    assert fields["Prompt"] == "a castle, (night:1.2)\nsecond line"
    assert fields["Negative prompt"] == "bad, ugly"
    assert fields["Lora hashes"] == "name: 1a2b3c4d5e6f, other: 0f"
    assert (fields["Steps"], fields["Size"], fields["Version"]) == ("25", "768x768", "v1.6.0")


def test_a_recipe_survives_the_file(tmp_path):
    write_image(tmp_path / "a.png", Image.new("RGB", (8, 8)), RECIPE)
    assert read_recipe(tmp_path / "a.png") == RECIPE
    assert read_parameters(tmp_path / "a.png") == parse_parameters(parameters_text(RECIPE))


@pytest.mark.parametrize(
    "prompt", ["Größe ☃, 日本", 'quo"te, \\ back', "a\nb", "Steps: 3, x: y, z: 1"]
)
def test_any_prompt_survives_the_file(tmp_path, prompt):
    recipe = replace(RECIPE, prompt=prompt, model='a, "b": c')
    write_image(tmp_path / "a.png", Image.new("RGB", (8, 8)), recipe)
    assert read_recipe(tmp_path / "a.png") == recipe
    fields = read_parameters(tmp_path / "a.png")
    assert fields["Prompt"] == f"{prompt} <lora:zqx:0.8>"
    assert fields["Model"] == 'a, "b": c'


def test_latin_1_prompts_stand_in_a_text_chunk_that_old_readers_know(tmp_path):
    write_image(tmp_path / "a.png", Image.new("RGB", (8, 8)), RECIPE)
    assert b"tEXtparameters\x00photo of zqx person" in (tmp_path / "a.png").read_bytes()


def test_only_what_changes_more_than_rounding_makes_another_key():
    assert replace(RECIPE, batch_place=0, threads=9, torch="9").key == RECIPE.key
    for name in ("seed", "lora_weight", "steps"):
        assert replace(RECIPE, **{name: 3}).key != RECIPE.key


def test_the_bare_base_names_no_lora():
    text = parameters_text(replace(RECIPE, lora=None, lora_hash=None, names={}))
    assert "lora" not in text.lower()


def test_a_damaged_or_foreign_image_has_no_recipe(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "foreign.png")
    write_image(tmp_path / "cut.png", Image.new("RGB", (64, 64), "red"), RECIPE)
    content = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[:-30])
    for name in ("foreign.png", "cut.png", "missing.png"):
        assert read_recipe(tmp_path / name) is None
    with pytest.raises(LabError, match=r"foreign\.png has no `parameters` chunk"):
        read_parameters(tmp_path / "foreign.png")


@pytest.mark.parametrize(
    "hostile",
    [
        *({"steps": "many"}, {"steps": 10**9}, {"width": 1e9}, {"height": 12}, {"threads": -1}),
        *({"guidance": float("nan")}, {"seed": 2**80}, {"seed": True}, {"lora_weight": "1"}),
        *({"names": 5}, {"names": {"a": 1}}, {"prompt": None}, {"lora": "../../other"}),
        *({"batch_size": 0}, {"batch_place": 2}, {"clip_skip": 0}, {"more": 1}),
    ],
    ids=str,
)
def test_a_recipe_with_hostile_settings_is_none(tmp_path, hostile):
    values = asdict(RECIPE) | hostile
    info = PngInfo()
    info.add_text(CHUNK, json.dumps(values))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    assert read_recipe(tmp_path / "a.png") is None


def test_a_recipe_that_nests_without_end_is_none(tmp_path):
    info = PngInfo()
    info.add_text(CHUNK, "[" * 100_000)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    assert read_recipe(tmp_path / "a.png") is None
