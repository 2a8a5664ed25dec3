"""Images with LoRAs: merged, restored, and equal to what diffusers draws from the same file."""

import numpy as np
import pytest
import torch

from lora_files import one_module_lora, random_lora
from lora_lab.checkpoint.base_model import encode_prompt_hidden, load_base
from lora_lab.errors import LabError
from lora_lab.lora_file import write_lora
from lora_lab.lora_file.merge import LoRAMerger, named_layers
from lora_lab.sampling.generate import (
    DrawSettings,
    ImageRequest,
    batches,
    draw_images,
    encode_request,
)
from lora_lab.text.conditioning import Conditioning, Guidance, PromptPart, encode

SETTINGS = DrawSettings("DPM++ 2M Karras", 4, 3.0, 32, 32, clip_skip=2, batch_size=4)
REQUESTS = [ImageRequest("zqx person, (smile:1.3)", "bad", seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def base(tiny_base):
    return load_base(str(tiny_base))


def pixels(drawn):
    return np.stack([np.asarray(result.image) for result in drawn])


def weights(base):
    layers = named_layers(base)
    return {name: layer.weight.clone() for name, layer in layers.items()}


def test_a_merged_weight_is_the_base_plus_alpha_over_dim_times_up_times_down(base):
    name, path = "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_2", None
    path = "mid_block.attentions.0.transformer_blocks.0.ff.net.2"
    before = base.unet.get_submodule(path).weight.clone()
    tensors = one_module_lora("unet", path, tuple(before.shape), dim=4)
    merger = LoRAMerger(base)
    merger.apply([(tensors, 0.5), (tensors, 0.25)])
    # alpha 1, dim 4, ones: 1/4 * 4 = 1 in each place, times the weight.
    torch.testing.assert_close(base.unet.get_submodule(path).weight, before + 0.75)
    assert f"{name}.alpha" in tensors
    merger.restore()
    assert torch.equal(base.unet.get_submodule(path).weight, before)


def test_restoring_brings_back_every_bit(base):
    before = weights(base)
    merger = LoRAMerger(base)
    for seed in range(3):
        merger.apply([(random_lora(base, seed=seed), 1.0)])
    merger.restore()
    after = weights(base)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_lora_covers_all_modules_of_sd_scripts(base):
    names = {key.partition(".")[0] for key in random_lora(base)}
    assert len([name for name in names if name.startswith("lora_te_")]) == 3 * 6
    blocks = sum("_attn1_to_q" in name for name in names)
    assert len([name for name in names if name.startswith("lora_unet_")]) == blocks * 12


@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("down_blocks.3.attentions.0.proj_in", (320, 320)),
        ("mid_block.attentions.0.proj_in", (9, 9)),
    ],
)
def test_a_lora_of_another_architecture_is_refused_with_its_key(base, path, shape):
    before = weights(base)
    merger = LoRAMerger(base)
    good = random_lora(base)
    wrong = {**good, **one_module_lora("unet", path, shape)}
    with pytest.raises(LabError, match=f"another architecture: .*{path.replace('.', '_')}"):
        merger.apply([(good, 1.0), (wrong, 1.0)])
    after = weights(base)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_equal_requests_give_equal_images(base):
    first, second = draw_images(base, REQUESTS, SETTINGS), draw_images(base, REQUESTS, SETTINGS)
    assert np.array_equal(pixels(first), pixels(second))
    assert not np.array_equal(pixels(first)[0], pixels(first)[1])


def test_a_lora_changes_the_image_and_its_weight_matters(base):
    merger = LoRAMerger(base)
    images = []
    for weight in (0.0, 0.5, 1.0):
        merger.apply([(random_lora(base), weight)])
        images.append(pixels(draw_images(base, REQUESTS, SETTINGS)))
    merger.restore()
    assert np.array_equal(images[0], pixels(draw_images(base, REQUESTS, SETTINGS)))
    assert not np.array_equal(images[0], images[1]) and not np.array_equal(images[1], images[2])


def test_diffusers_draws_the_same_images_from_the_same_file(tiny_base, base, tmp_path):
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    tensors = random_lora(base)
    write_lora(tmp_path / "lora.safetensors", tensors, {"ss_seed": "1"})
    merger = LoRAMerger(base)
    merger.apply([(tensors, 1.0)])
    ours = pixels(draw_images(base, REQUESTS, SETTINGS))
    merger.restore()
    plain = pixels(draw_images(base, REQUESTS, SETTINGS))

    pipe = StableDiffusionPipeline.from_pretrained(tiny_base, low_cpu_mem_usage=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config,
        algorithm_type="dpmsolver++",
        use_karras_sigmas=True,
        timestep_spacing="linspace",
    )
    pipe.load_lora_weights(tmp_path, weight_name="lora.safetensors")
    theirs = pixels_of_pipeline(pipe, base)
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert np.abs(ours.astype(int) - plain).max() > 10


def pixels_of_pipeline(pipe, base):
    """The images of diffusers' own loop, from the same embeddings and the same noise."""
    pipe.scheduler.set_timesteps(SETTINGS.steps)
    sigma = float(pipe.scheduler.sigmas[0])
    noise = [
        torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(r.seed)) for r in REQUESTS
    ]
    holder = type(base)(**{**vars(base), "text_encoder": pipe.text_encoder})
    with torch.no_grad():
        asked = encode_request(holder, REQUESTS[0], SETTINGS)
    images = pipe(
        prompt_embeds=asked.prompt.parts[0].hidden.expand(3, -1, -1),
        negative_prompt_embeds=asked.negative.parts[0].hidden.expand(3, -1, -1),
        latents=torch.stack(noise) * sigma / (1 + sigma**2) ** 0.5,
        num_inference_steps=SETTINGS.steps,
        guidance_scale=SETTINGS.guidance,
        height=32,
        width=32,
    ).images
    return np.stack([np.asarray(image) for image in images]).astype(int)


def conditionings(states):
    """One prompt without edits an image, from hidden states (B, T * 77, C)."""
    return [Conditioning((PromptPart(1.0, (20,), state[None]),)) for state in states]


def test_guidance_is_the_formula_of_classifier_free_guidance(base):
    random = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=random)
    prompt, negative = torch.randn(2, 2, 77, 32, generator=random)
    time = torch.tensor(500)
    with torch.no_grad():
        with_prompt = base.unet(latents, time, prompt)[0]
        without = base.unet(latents, time, negative)[0]
        unet, without_text = base.unet, conditionings(negative)
        result = Guidance(unet, conditionings(prompt), without_text, 4.0)
        alone = Guidance(unet, conditionings(prompt), without_text, 1.0)
        longer = Guidance(unet, conditionings(torch.cat([prompt] * 2, 1)), without_text, 4.0)
        result, alone, longer = (g.noise_pred(latents, time, 0) for g in (result, alone, longer))
    expected = without + 4.0 * (with_prompt - without)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(alone, with_prompt)
    assert longer.shape == result.shape


def test_a_prompt_without_weights_is_encoded_as_its_tokens(base):
    ids = base.tokenizer("the person", padding="max_length", max_length=77, return_tensors="pt")
    with torch.no_grad():
        expected = encode_prompt_hidden(base.text_encoder, ids.input_ids, 2)
        (part,) = encode(base, "the person", clip_skip=2, calls=20).parts
        assert torch.equal(part.hidden, expected)


def test_batches_hold_prompts_of_one_length_and_are_of_nearly_equal_size():
    lengths = [(1, 1)] * 11 + [(2, 1)] * 3
    assert [len(batch) for batch in batches(lengths, 10)] == [5, 6, 3]
    assert sorted(i for batch in batches(lengths, 4) for i in batch) == list(range(14))


def test_an_image_that_is_not_a_number_does_not_stop_the_others(base, monkeypatch):
    whole = base.vae.decode

    def decode(latents, **settings):
        images = whole(latents, **settings)[0]
        images[1] = float("nan")
        return (images,)

    monkeypatch.setattr(base.vae, "decode", decode)
    drawn = draw_images(base, REQUESTS, SETTINGS)
    assert [result.image is None for result in drawn] == [False, True, False]
    assert "NaN" in str(drawn[1].problem)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("width", 36, r"sampling\.width must be a multiple of 8 for .*, got 36"),
        ("clip_skip", 4, r"sampling\.clip_skip must be from 1 to 3 for .*, got 4"),
        ("sampler", "PLMS", r"sampling\.sampler must be one of"),
    ],
)
def test_settings_that_the_model_cannot_draw_with_are_refused(base, field, value, message):
    from dataclasses import replace

    with pytest.raises(LabError, match=message):
        draw_images(base, REQUESTS, replace(SETTINGS, **{field: value}))
