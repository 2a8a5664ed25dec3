"""Single-file checkpoints: every usual layout is read, and what is something else is named."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from ldm_writer import (
    ldm_tensors,
    narrow_architecture,
    random_parts,
    training_leftovers,
    unet_name,
    vae_name,
    write_ldm,
)
from lora_lab.checkpoint import base_model
from lora_lab.checkpoint.base_model import BaseModel, load_base
from lora_lab.checkpoint.embedded import is_hub_name
from lora_lab.checkpoint.families.sd15 import SD15
from lora_lab.checkpoint.hub import chosen_weights, fetch_folder
from lora_lab.errors import LabError


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """The architecture of Stable Diffusion 1.5 with few channels, and random weights for it."""
    folder = narrow_architecture(tmp_path_factory.mktemp("narrow") / "sd15")
    parts = random_parts(folder)
    return SimpleNamespace(folder=folder, parts=parts, tensors=ldm_tensors(parts))


@pytest.fixture(autouse=True)
def narrow_is_sd15(narrow, monkeypatch):
    monkeypatch.setattr(base_model, "SD15", replace(SD15, configs=narrow.folder))


def assert_same_weights(base: BaseModel, parts: dict, dtype: torch.dtype) -> None:
    """Every tensor, as its type stores it, in the module that it belongs to."""
    for part, module in parts.items():
        found, wanted = getattr(base, part).state_dict(), module.state_dict()
        assert found.keys() == wanted.keys()
        for key, tensor in wanted.items():
            assert torch.equal(found[key], tensor.to(dtype).float()), f"{part}: {key}"


@pytest.mark.parametrize(
    ("dtype", "text_model", "leftovers"),
    [
        (torch.float32, "text_model.", False),
        (torch.float32, "", True),
        (torch.float16, "text_model.", True),
        (torch.bfloat16, "", False),
    ],
)
def test_each_spelling_of_a_single_file_gives_the_same_weights(
    narrow, tmp_path, dtype, text_model, leftovers
):
    tensors = ldm_tensors(narrow.parts, text_model)
    if leftovers:
        tensors |= training_leftovers(tensors)
    base = load_base(str(write_ldm(tmp_path / "model.safetensors", tensors, dtype)))
    assert_same_weights(base, narrow.parts, dtype)
    assert base.name == "model"


def test_diffusers_reads_our_writers_file_as_we_do(narrow, tmp_path):
    """The pipeline's own reader of single files, with the same configs."""
    path = write_ldm(tmp_path / "model.safetensors", narrow.tensors, torch.float32)
    pipeline = StableDiffusionPipeline.from_single_file(
        str(path), config=str(narrow.folder), local_files_only=True, safety_checker=None
    )
    base = load_base(str(path))
    for part in ("unet", "vae", "text_encoder"):
        found, wanted = getattr(base, part).state_dict(), getattr(pipeline, part).state_dict()
        names = {key.removeprefix("text_model."): key for key in wanted}
        assert found.keys() == {key for key in names if "position_ids" not in key}
        assert all(torch.equal(found[key], wanted[names[key]]) for key in found)


def test_the_writer_knows_names_that_compvis_published():
    """From the keys of v1-5-pruned-emaonly, as diffusers' documentation and A1111 quote them."""
    assert unet_name("up_blocks.3.resnets.2.conv_shortcut.weight") == (
        "output_blocks.11.0.skip_connection.weight"
    )
    assert unet_name("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight") == (
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    )
    assert vae_name("decoder.up_blocks.3.resnets.0.conv_shortcut.bias") == (
        "decoder.up.0.block.0.nin_shortcut.bias"
    )


@pytest.mark.parametrize(
    ("extra", "metadata", "prediction", "rescaled"),
    [
        ({}, {}, "epsilon", False),
        ({"v_pred": torch.zeros(0)}, {}, "v_prediction", False),
        ({"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, {}, "v_prediction", True),
        ({}, {"modelspec.prediction_type": "v"}, "v_prediction", False),
        ({}, {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
    ],
)
def test_a_file_may_say_what_its_unet_predicts(
    narrow, tmp_path, extra, metadata, prediction, rescaled
):
    tensors = {**narrow.tensors, **extra}
    path = write_ldm(tmp_path / "model.safetensors", tensors, torch.float16, **metadata)
    scheduler = load_base(str(path)).noise_scheduler
    assert scheduler.config["prediction_type"] == prediction
    assert (scheduler.alphas_cumprod[-1] == 0) == rescaled


def test_the_config_overrules_what_the_checkpoint_says(tiny_base):
    said = load_base(str(tiny_base), parts=())
    asked = load_base(
        str(tiny_base), parts=(), prediction_type="v_prediction", zero_terminal_snr=True
    )
    assert said.noise_scheduler.config["prediction_type"] == "epsilon"
    assert asked.noise_scheduler.config["prediction_type"] == "v_prediction"
    assert said.noise_scheduler.alphas_cumprod[-1] > 0.004
    assert asked.noise_scheduler.alphas_cumprod[-1] == 0


U, C = "model.diffusion_model.", "cond_stage_model."
OTHERS: list[tuple[str, dict[str, tuple[int, ...]]]] = [
    ("is SDXL", {f"{U}label_emb.0.0.weight": (8, 8), "conditioner.embedders.1.model.ln": (8,)}),
    ("is the SDXL refiner", {"conditioner.embedders.0.model.ln_final.weight": (8,)}),
    ("is Stable Diffusion 2.x", {f"{C}model.transformer.resblocks.0.ln_1.weight": (8,)}),
    (
        "is Stable Diffusion 2.x",
        {f"{U}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (8, 1024)},
    ),
    ("is Stable Diffusion 3", {f"{U}joint_blocks.0.x_block.attn.proj.weight": (8, 8)}),
    ("is Flux", {"double_blocks.0.img_attn.norm.key_norm.scale": (8,)}),
    (
        "is an inpainting checkpoint (its UNet takes 9",
        {f"{U}input_blocks.0.0.weight": (8, 9, 3, 3)},
    ),
    ("is an instruct-pix2pix", {f"{U}input_blocks.0.0.weight": (8, 8, 3, 3)}),
    (
        "is a LoRA, not a checkpoint",
        {"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (4, 8)},
    ),
    ("is a LoRA, not a checkpoint", {"lora_unet_mid_block_attentions_0_proj_in.hada_w1_a": (4, 8)}),
    ("is a ControlNet", {"control_model.input_blocks.0.0.weight": (8, 4, 3, 3)}),
    ("is a textual inversion", {"emb_params": (1, 768)}),
    (
        "is a single part of a diffusers folder",
        {"down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3)},
    ),
    ("is a VAE", {"decoder.conv_in.weight": (8, 4, 3, 3), "encoder.conv_in.weight": (8, 3, 3, 3)}),
    ("lacks the UNet", {"something": (1,)}),
    ("lacks the text encoder", {f"{U}input_blocks.0.0.weight": (8, 4, 3, 3)}),
]


@pytest.mark.parametrize(("message", "shapes"), OTHERS)
def test_other_files_are_refused_as_what_they_are(tmp_path, message, shapes):
    path = tmp_path / "other.safetensors"
    save_file({key: torch.zeros(shape) for key, shape in shapes.items()}, path)
    with pytest.raises(LabError) as error:
        load_base(str(path))
    assert f"other.safetensors {message}" in str(error.value)


def test_a_file_without_vae_is_refused_as_such(narrow, tmp_path):
    tensors = {k: t for k, t in narrow.tensors.items() if not k.startswith("first_stage_model.")}
    path = write_ldm(tmp_path / "model.safetensors", tensors, torch.float16)
    with pytest.raises(LabError, match=r"lacks the VAE .* download the full file"):
        load_base(str(path))


@pytest.mark.parametrize("size", [0, 7, 1000, -4])
def test_a_truncated_file_is_refused_by_name(narrow, tmp_path, size):
    path = write_ldm(tmp_path / "cut.safetensors", narrow.tensors, torch.float16)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(LabError, match=r"cut\.safetensors is not a complete safetensors file"):
        load_base(str(path))


def test_a_pickled_single_file_is_read_only_when_allowed(narrow, tmp_path):
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": narrow.tensors, "global_step": 1}, path)
    with pytest.raises(LabError, match=r"model\.ckpt is a pickle.*model\.allow_pickle=true"):
        load_base(str(path))
    assert_same_weights(load_base(str(path), allow_pickle=True), narrow.parts, torch.float32)


@pytest.mark.parametrize(
    ("folder", "files", "message"),
    [
        ("text_encoder_2", {}, "is SDXL"),
        ("transformer", {"model_index.json": '{"_class_name": "FluxPipeline"}'}, "FluxPipeline"),
        ("unet", {"unet/config.json": '{"in_channels": 9}'}, "is an inpainting checkpoint"),
        (
            "unet",
            {"unet/config.json": '{"cross_attention_dim": 1024}'},
            r"is Stable Diffusion 2\.x",
        ),
    ],
)
def test_other_folders_are_refused_as_what_they_are(tmp_path, folder, files, message):
    (tmp_path / folder).mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(LabError, match=message):
        load_base(str(tmp_path))


def test_a_folder_with_fp16_files_alone_is_read(tiny_base, tmp_path):
    copy = Path(shutil.copytree(tiny_base, tmp_path / "copy"))
    for path in copy.rglob("*.safetensors"):
        half = {key: tensor.half() for key, tensor in load_file(path).items()}
        save_file(half, path.with_name(f"{path.stem}.fp16.safetensors"))
        path.unlink()
    whole = load_base(str(tiny_base)).unet.state_dict()
    for key, tensor in load_base(str(copy)).unet.state_dict().items():
        assert torch.equal(tensor, whole[key].half().float())


def test_the_name_of_a_repository_is_told_from_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert is_hub_name("stable-diffusion-v1-5/stable-diffusion-v1-5")
    for path in ("models/mine", "embedded:pocket", "a/b/c", "/x/y", "owner/file.safetensors", "a"):
        assert not is_hub_name(path), path


def hub_cache(folder: Path, checkpoint: Path) -> None:
    """Hugging Face's cache as a download leaves it."""
    repository = folder / "models--owner--tiny"
    shutil.copytree(checkpoint, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)


def test_a_repository_in_the_cache_is_read_without_a_network(tiny_base, tmp_path, monkeypatch):
    hub_cache(tmp_path, tiny_base)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    base = load_base("owner/tiny")
    assert base.name == "tiny" and base.fingerprint == load_base(str(tiny_base)).fingerprint


def test_a_repository_out_of_reach_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(LabError, match=r"owner/none is no file or folder here.*network") as error:
        fetch_folder("owner/none")
    assert "\n" not in str(error.value)


def test_an_error_of_the_network_library_is_told_in_one_line(tmp_path, monkeypatch):
    class ConnectError(Exception):
        """As httpx raises it: of no class that huggingface_hub documents."""

    def unreachable(name):
        raise ConnectError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.list_repo_files", unreachable)
    with pytest.raises(LabError, match=r"Name or service not known.*check the name"):
        fetch_folder("owner/none")


def test_of_a_repository_plain_weights_are_preferred_and_pickles_refused():
    files = [f"{p}/{s}.safetensors" for p, s in (("unet", "diffusion_pytorch_model"),)]
    files += ["vae/diffusion_pytorch_model.fp16.safetensors", "text_encoder/model.safetensors"]
    files += ["unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.bin"]
    assert chosen_weights("a/b", files) == [
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]
    with pytest.raises(LabError, match=r"a/b holds no unet/diffusion_pytorch_model\.safetensors"):
        chosen_weights("a/b", ["unet/diffusion_pytorch_model.bin"])
