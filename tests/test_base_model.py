"""Reading a base checkpoint: whole, old and damaged ones."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from lora_lab.checkpoint.base_model import encode_prompt_hidden, load_base
from lora_lab.errors import LabError

UNET = Path("unet/diffusion_pytorch_model.safetensors")
VAE = Path("vae/diffusion_pytorch_model.safetensors")
TEXT = Path("text_encoder/model.safetensors")


@pytest.fixture
def copy(tiny_base, tmp_path):
    """A copy of the tiny base that a test may damage."""
    return Path(shutil.copytree(tiny_base, tmp_path / "copy"))


def change(path, rename=lambda key: key, convert=lambda tensor: tensor):
    """Rewrite a file of weights with other names or other tensors."""
    tensors = load_file(path)
    save_file({rename(key): convert(tensor) for key, tensor in tensors.items()}, path)


def test_all_parts_compute_what_their_own_readers_compute(tiny_base):
    base = load_base(str(tiny_base))
    random = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=random)
    states = torch.randn(2, 77, 32, generator=random)
    ids = torch.randint(0, 500, (2, 77), generator=random)
    unet = UNet2DConditionModel.from_pretrained(tiny_base / "unet", low_cpu_mem_usage=False).eval()
    vae = AutoencoderKL.from_pretrained(tiny_base / "vae", low_cpu_mem_usage=False).eval()
    text = CLIPTextModel.from_pretrained(tiny_base / "text_encoder").eval()
    with torch.no_grad():
        assert torch.equal(base.unet(latents, 7, states)[0], unet(latents, 7, states)[0])
        assert torch.equal(base.vae.decode(latents)[0], vae.decode(latents)[0])
        expected = text(input_ids=ids).last_hidden_state
        assert torch.equal(encode_prompt_hidden(base.text_encoder, ids, 1), expected)


def test_the_base_is_frozen_and_in_32_bits(copy):
    change(copy / UNET, convert=torch.Tensor.half)
    base = load_base(str(copy))
    for module in (base.unet, base.text_encoder, base.vae):
        assert not module.training
        assert all(p.dtype == torch.float32 and not p.requires_grad for p in module.parameters())


def test_clip_skip_counts_hidden_states_from_the_end(tiny_base):
    base = load_base(str(tiny_base), parts=["text_encoder"])
    ids = torch.arange(77)[None]
    states = base.text_encoder(input_ids=ids, output_hidden_states=True).hidden_states
    expected = base.text_encoder.final_layer_norm(states[-2])
    assert torch.equal(encode_prompt_hidden(base.text_encoder, ids, 2), expected)
    for wrong in (0, 4):
        with pytest.raises(LabError, match=f"clip_skip must be from 1 to 3 .* got {wrong}"):
            encode_prompt_hidden(base.text_encoder, ids, wrong)


def test_fingerprints_tell_checkpoints_apart(tiny_base, copy):
    one, same = load_base(str(tiny_base)), load_base(str(copy))
    assert (one.fingerprint, one.vae_fingerprint) == (same.fingerprint, same.vae_fingerprint)
    change(copy / VAE, convert=lambda tensor: tensor + 1)
    other = load_base(str(copy))
    assert other.fingerprint == one.fingerprint and other.vae_fingerprint != one.vae_fingerprint
    change(copy / TEXT, convert=lambda tensor: tensor + 1)
    assert load_base(str(copy)).fingerprint != one.fingerprint


def test_parts_that_are_not_asked_for_stay_without_weights(tiny_base):
    base = load_base(str(tiny_base), parts=["vae"])
    assert base.unet.device.type == "meta" and base.vae.device.type == "cpu"
    assert base.latent_factor == 4 and base.fingerprint == load_base(str(tiny_base)).fingerprint


def test_names_of_older_versions_are_read(tiny_base, copy):
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def old_vae_name(key):
        for new, name in old.items():
            if "mid_block.attentions" in key:
                key = key.replace(f".{new}.", f".{name}.")
        return key

    change(copy / VAE, old_vae_name)
    change(copy / TEXT, lambda key: f"text_model.{key}")
    assert any(".query." in key for key in load_file(copy / VAE))
    new, read = load_base(str(tiny_base)), load_base(str(copy))
    assert (read.fingerprint, read.vae_fingerprint) == (new.fingerprint, new.vae_fingerprint)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part_is_named(copy, part):
    shutil.rmtree(copy / part)
    with pytest.raises(LabError, match=part):
        load_base(str(copy))


def test_a_missing_checkpoint_is_named():
    with pytest.raises(LabError, match=r"/no/such/model"):
        load_base("/no/such/model")


@pytest.mark.parametrize("part", [UNET, VAE, TEXT])
def test_a_missing_key_is_named_with_its_file(copy, part):
    tensors = load_file(copy / part)
    key = sorted(tensors)[3]
    del tensors[key]
    save_file(tensors, copy / part)
    with pytest.raises(LabError) as error:
        load_base(str(copy))
    assert key in str(error.value) and part.parts[0] in str(error.value)


def test_an_unknown_key_is_named(copy):
    save_file({**load_file(copy / VAE), "surprise": torch.ones(1)}, copy / VAE)
    with pytest.raises(LabError, match=r"vae holds the unknown key surprise"):
        load_base(str(copy))


def test_a_wrong_shape_is_named(copy):
    tensors = load_file(copy / UNET)
    tensors["conv_in.bias"] = torch.zeros(3)
    save_file(tensors, copy / UNET)
    with pytest.raises(LabError, match=r"conv_in\.bias has shape \(3,\), the config says \(16,\)"):
        load_base(str(copy))


def test_a_truncated_file_is_named(copy):
    content = (copy / UNET).read_bytes()
    (copy / UNET).write_bytes(content[: len(content) // 2])
    with pytest.raises(LabError, match=r"unet.* is not a complete safetensors file"):
        load_base(str(copy))


def test_a_damaged_config_is_named(copy):
    (copy / "unet" / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(LabError, match=r"config\.json cannot be read as JSON"):
        load_base(str(copy))


def test_a_tokenizer_of_another_checkpoint_is_refused(copy):
    config = copy / "text_encoder" / "config.json"
    config.write_text(
        config.read_text(encoding="utf-8").replace('"vocab_size": 524', '"vocab_size": 600')
    )
    tensors = load_file(copy / TEXT)
    tensors["embeddings.token_embedding.weight"] = torch.zeros(600, 32)
    save_file(tensors, copy / TEXT)
    with pytest.raises(LabError, match="the tokenizer has 524 tokens, the text encoder 600"):
        load_base(str(copy))


def test_a_pickle_is_read_only_when_allowed_and_then_weights_only(tiny_base, copy):
    tensors = load_file(copy / UNET)
    (copy / UNET).unlink()
    torch.save(tensors, copy / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(LabError, match=r"model\.allow_pickle=true"):
        load_base(str(copy))
    read = load_base(str(copy), allow_pickle=True)
    assert read.fingerprint == load_base(str(tiny_base)).fingerprint


def test_a_pickle_with_code_in_it_is_refused_even_when_allowed(copy, tmp_path):
    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (copy / UNET).unlink()
    torch.save({"a": Harmful()}, copy / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(LabError, match="weights_only=True"):
        load_base(str(copy), allow_pickle=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 2_000_000_000}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": "many"}),
        ("scheduler/scheduler_config.json", {"beta_schedule": "unheard of"}),
        ("unet/config.json", {"block_out_channels": "wide"}),
        ("unet/config.json", {"layers_per_block": 10**9}),
        ("text_encoder/config.json", {"hidden_size": 10**12}),
        ("vae/config.json", {"scaling_factor": "x"}),
        ("vae/config.json", {"scaling_factor": 0}),
        ("vae/config.json", {"down_block_types": ["NoSuchBlock"]}),
        ("text_encoder/config.json", {"hidden_size": -1}),
    ],
)
def test_a_config_of_a_part_that_can_not_be_built_is_named(tiny_base, tmp_path, file, change):
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LabError, match=file.replace(".", r"\.")):
        load_base(str(folder))


def test_a_damaged_tokenizer_is_named(tiny_base, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(tiny_base, folder)
    for path in (folder / "tokenizer").iterdir():
        path.write_text("{")
    with pytest.raises(LabError, match="base/tokenizer"):
        load_base(str(folder))
