"""Images of several LoRAs in one batch: each as if it were drawn alone, to the byte on a CPU."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from lora_files import random_lora
from lora_lab.checkpoint.base_model import load_base
from lora_lab.images.png_info import read_recipe
from lora_lab.lora_file import write_lora
from lora_lab.lora_file.merge import LoRAMerger, merged_weights, named_layers
from lora_lab.sampling.generate import ImageRequest, draw_images, draw_settings
from lora_lab.sampling.image_layers import ImageLayers
from lora_lab.sampling.pipeline import ImageTask, LoRAPipeline
from settings import tiny_sampling

TIME = torch.tensor(500)


@pytest.fixture(scope="module")
def base(tiny_base):
    return load_base(str(tiny_base))


def whole_lora(base, seed):
    """A change of every layer of the UNet: LoCon, the layers of the timestep among them."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, layer in named_layers(base).items():
        if name.startswith("lora_unet_"):
            out, inner, *kernel = layer.weight.shape
            down = torch.randn((2, inner, *kernel), generator=generator)
            up = torch.randn((out, 2, *([1] * len(kernel))), generator=generator)
            tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = down, up * 0.02
    return tensors


@pytest.fixture
def loras(tmp_path, base):
    """LoRAs of two ranks, one of them of the UNet alone, a LoCon, and a LoHa."""
    large = random_lora(base, dim=8, seed=1)
    loha = {}
    for key, tensor in random_lora(base, dim=2, seed=2, size=0.3).items():
        name, _, leaf = key.partition(".")
        if leaf == "alpha" or tensor.ndim > 2:
            continue
        down = leaf == "lora_down.weight"
        for factor in "12":
            loha[f"{name}.hada_w{factor}_{'b' if down else 'a'}"] = tensor.clone()
    files = {
        "small": random_lora(base, dim=2),
        "large": {key: tensor for key, tensor in large.items() if key.startswith("lora_unet_")},
        "locon": whole_lora(base, 3),
        "loha": loha,
    }
    for name, tensors in files.items():
        write_lora(tmp_path / "loras" / f"{name}.safetensors", tensors, {})
    return tmp_path / "loras"


def draw(base, sampling, loras, output):
    """Images of each LoRA with several prompts, seeds and weights: name -> pixels."""
    prompts = ["a person", "a [young:old:0.5] person<lora:small:0.5>", "a person " * 60]
    drawn = [
        *(
            (name, 1.0, prompt, 7)
            for name in ("small", "large", "locon", "loha")
            for prompt in prompts
        ),
        *(("large", weight, prompts[0], 8) for weight in (0.5, 1.0)),
    ]
    tasks = [
        ImageTask(
            output / f"{number}-{name}.png",
            ImageRequest(prompt, "bad", seed),
            draw_settings(sampling),
            loras / f"{name}.safetensors",
            weight,
            plain_name=True,
        )
        for number, (name, weight, prompt, seed) in enumerate(drawn)
    ]
    outcomes = LoRAPipeline(base, sampling).draw(tasks)
    assert not [outcome.problem for outcome in outcomes if outcome.problem]
    return {task.path.name: np.asarray(Image.open(task.path)) for task in tasks}


@pytest.mark.parametrize("guidance", [4.0, 1.0])
def test_an_image_has_the_same_bytes_alone_and_beside_images_of_other_loras(
    tmp_path, tiny_base, base, loras, guidance
):
    settings = {"lora_dir": str(loras), "guidance": guidance}
    one = tiny_sampling(tiny_base, batch_size=1, loras_at_once=1, **settings)
    many = tiny_sampling(tiny_base, batch_size=9, loras_at_once=9, **settings)
    alone = draw(base, one, loras, tmp_path / "alone")
    together = draw(base, many, loras, tmp_path / "together")
    sizes = Counter(read_recipe(path).batch_size for path in (tmp_path / "together").iterdir())
    assert max(sizes) >= 5, "images of several LoRAs share a batch"
    assert {name for name in alone if not np.array_equal(alone[name], together[name])} == set()
    assert len({image.tobytes() for image in alone.values()}) == len(alone)


def test_a_batch_of_several_loras_draws_what_merging_them_draws(tmp_path, tiny_base, base, loras):
    sampling = tiny_sampling(tiny_base, batch_size=9, loras_at_once=9, lora_dir=str(loras))
    together = draw(base, sampling, loras, tmp_path / "together")
    merger = LoRAMerger(base)
    merger.apply([(random_lora(base, dim=2), 1.0), (random_lora(base, dim=2), 0.5)])
    request = ImageRequest("a [young:old:0.5] person", "bad", 7)
    (merged,) = draw_images(base, [request], draw_settings(sampling))
    merger.restore()
    difference = np.abs(np.asarray(merged.image).astype(int) - together["1-small.png"])
    assert difference.max() <= 1


def test_a_lora_that_does_not_fit_leaves_the_images_of_the_others(tmp_path, tiny_base, base, loras):
    sampling = tiny_sampling(tiny_base)
    strange = {
        "lora_unet_no_such_layer.lora_down.weight": torch.ones(1, 2),
        "lora_unet_no_such_layer.lora_up.weight": torch.ones(2, 1),
    }
    write_lora(loras / "strange.safetensors", strange, {})
    tasks = [
        ImageTask(
            tmp_path / f"{name}.png",
            ImageRequest("a person", "", 1),
            draw_settings(sampling),
            loras / f"{name}.safetensors",
            1.0,
            plain_name=True,
        )
        for name in ("small", "strange", "missing", "large")
    ]
    outcomes = LoRAPipeline(base, sampling).draw(tasks)
    assert [outcome.drawn for outcome in outcomes] == [True, False, False, True]
    assert "no module lora_unet_no_such_layer" in outcomes[1].problem


def test_keys_and_values_of_a_prompt_are_computed_once_for_all_steps(base, monkeypatch):
    states, latents = torch.randn(2, 77, 32), torch.randn(2, 4, 8, 8)
    layer = base.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_k
    layers, taken = ImageLayers(base.unet), []
    products = layers._products
    monkeypatch.setattr(
        layers, "_products", lambda of, rows: (taken.append(of), products(of, rows))[1]
    )
    with torch.inference_mode(), layers.images([(2, {})]):
        first, second, other = (
            base.unet(latents, TIME, hidden, return_dict=False)[0]
            for hidden in (states, states, states.clone())
        )
    assert taken.count(layer) == 2
    assert torch.equal(first, second) and torch.equal(first, other)


def test_after_the_block_the_layers_are_called_as_before(base):
    states, latents = torch.randn(2, 77, 32), torch.randn(2, 4, 8, 8)
    changed = merged_weights(named_layers(base), [(random_lora(base, size=1.0), 1.0)])
    weights = {named_layers(base)[name]: weight for name, weight in changed.items()}
    layers = ImageLayers(base.unet)
    with torch.inference_mode():
        before = base.unet(latents, TIME, states, return_dict=False)[0]
        with pytest.raises(RuntimeError, match="stop"), layers.images([(1, weights), (1, {})]):
            inside = base.unet(latents, TIME, states, return_dict=False)[0]
            raise RuntimeError("stop")
        assert torch.equal(before, base.unet(latents, TIME, states, return_dict=False)[0])
    torch.testing.assert_close(inside[1], before[1], atol=1e-5, rtol=1e-4)
    assert (inside[0] - before[0]).abs().max() > 1e-3


def test_threads_of_a_cpu_divide_each_image_by_itself():
    """In channels last, PyTorch divides the pixels of a batch, so a sum's parts would differ."""
    images = torch.randn(3, 8, 40, 40).contiguous(memory_format=torch.channels_last)
    model, threads = torch.nn.Sequential(torch.nn.GroupNorm(2, 8)), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.inference_mode(), ImageLayers(model).images():
            together = model(images)
            alone = torch.cat([model(image) for image in images.split(1)])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(together, alone)
