"""The LoRA file: names, bytes, hashes, metadata, and what is refused."""

import hashlib
import json
import struct

import pytest
import torch

from lora_lab.errors import LabError
from lora_lab.kohya.own_fields import SETTINGS
from lora_lab.lora_file import (
    TrainingFacts,
    build_metadata,
    kohya_key,
    read_lora,
    write_lora,
)

TENSORS = {
    "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": torch.arange(8.0).view(2, 4),
    "lora_unet_mid_block_attentions_0_proj_in.lora_up.weight": torch.ones(4, 2),
    "lora_unet_mid_block_attentions_0_proj_in.alpha": torch.tensor(1.0),
}
FACTS = TrainingFacts(
    step=500,
    total_steps=1100,
    epoch=46,
    batches_per_epoch=11,
    image_counts={"1_zqx person": (1, 33)},
    reg_image_counts={"1_person": (2, 10)},
    tag_frequency={"1_zqx person": {"zqx person": 33, "smile": 4}},
    bucket_counts={(768, 768): 33},
    bucket_limits=(256, 2048),
    mean_aspect_error=0.0625,
    optimizer="dadaptation.dadapt_adam.DAdaptAdam(betas=(0.9, 0.99),growth_rate=1.02)",
    network={
        "ss_network_module": "networks.lora",
        "ss_network_dim": 192,
        "ss_network_alpha": 1.0,
        "ss_network_dropout": None,
    },
    prediction_type="epsilon",
    checkpoint_name="realistic.safetensors",
    checkpoint_sha256="ab" * 32,
    checkpoint_legacy_hash="c0c0c0c0",
    started_at=1700000000.25,
    finished_at=1700003600.5,
    session_id=7,
)
READERS_LOOK_AT = [
    "ss_network_module",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_base_model_version",
    "ss_sd_model_name",
    "ss_sd_model_hash",
    "ss_new_sd_model_hash",
    "ss_tag_frequency",
    "ss_dataset_dirs",
    "ss_bucket_info",
    "ss_resolution",
    "ss_num_train_images",
    "ss_num_reg_images",
    "ss_seed",
    "ss_steps",
    "ss_epoch",
    "ss_num_epochs",
    "ss_learning_rate",
    "ss_unet_lr",
    "ss_text_encoder_lr",
    "ss_lr_scheduler",
    "ss_optimizer",
    "ss_clip_skip",
    "ss_noise_offset",
    "ss_min_snr_gamma",
    "ss_mixed_precision",
    "ss_output_name",
    "ss_training_comment",
    "ss_training_started_at",
    "ss_training_finished_at",
    "ss_session_id",
    "modelspec.sai_model_spec",
    "modelspec.architecture",
    "modelspec.title",
    "modelspec.resolution",
    "modelspec.date",
    "modelspec.prediction_type",
]


@pytest.fixture(scope="module")
def metadata():
    """Metadata of a run with the guide's settings."""
    from settings import composed

    config = composed("model=sd15", "model.checkpoint=x", "data=folder", "data.dir=x")
    return build_metadata(config, FACTS)


def header_and_data(path):
    """Take a safetensors file apart by its specification."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def test_module_names_are_those_of_sd_scripts():
    unet = "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0"
    assert kohya_key("unet", unet, "alpha") == (
        "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0.alpha"
    )
    text = "encoder.layers.11.self_attn.q_proj"
    assert kohya_key("text_encoder", text, "lora_up.weight") == (
        "lora_te_text_model_encoder_layers_11_self_attn_q_proj.lora_up.weight"
    )


def test_a_file_comes_back_as_it_was_written(tmp_path):
    write_lora(tmp_path / "a.safetensors", TENSORS, {"ss_seed": "1"})
    tensors, metadata = read_lora(tmp_path / "a.safetensors")
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[key], TENSORS[key]) for key in TENSORS)
    assert metadata["ss_seed"] == "1"


def test_equal_contents_give_equal_bytes(tmp_path, metadata):
    for name in ("a", "b"):
        write_lora(tmp_path / name, TENSORS, dict(reversed(metadata.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert list(header_and_data(tmp_path / "a")[0]["__metadata__"]) == sorted(
        [*metadata, "sshs_model_hash", "sshs_legacy_hash"]
    )


def test_the_model_hash_is_sha256_of_all_bytes_after_the_header(tmp_path, metadata):
    write_lora(tmp_path / "a", TENSORS, metadata)
    header, data = header_and_data(tmp_path / "a")
    assert header["__metadata__"]["sshs_model_hash"] == hashlib.sha256(data).hexdigest()


def test_the_legacy_hash_is_of_the_bytes_behind_the_first_mebibyte(tmp_path):
    name = "lora_unet_mid_block_attentions_0_proj_in"
    numbers = torch.randn(2, 200_000, generator=torch.Generator().manual_seed(0))
    tensors = {f"{name}.lora_down.weight": numbers, f"{name}.lora_up.weight": numbers.T}
    write_lora(tmp_path / "a", tensors, {"ss_seed": "1", "modelspec.title": "not hashed"})
    header, data = header_and_data(tmp_path / "a")
    legacy = header["__metadata__"].pop("sshs_legacy_hash")
    header["__metadata__"] = {"ss_seed": "1"}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    whole = struct.pack("<Q", len(text)) + text + data
    assert legacy == hashlib.sha256(whole[0x100000:0x110000]).hexdigest()[:8]


def test_all_metadata_are_strings_and_all_that_readers_look_at_is_there(metadata):
    assert all(isinstance(value, str) for value in metadata.values())
    assert not [key for key in READERS_LOOK_AT if key not in metadata]


def test_metadata_of_the_guides_base_read_as_sd_scripts_writes_them(metadata):
    expected = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": "192",
        "ss_base_model_version": "sd_v1",
        "ss_clip_skip": "2",
        "ss_seed": "1234",
        "ss_resolution": "(768, 768)",
        "ss_num_train_images": "33",
        "ss_mixed_precision": "bf16",
        "ss_lr_scheduler": "cosine",
        "ss_noise_offset": "None",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.date": "2023-11-14T23:13:20",
    }
    assert {key: metadata[key] for key in expected} == expected
    assert json.loads(metadata["ss_dataset_dirs"]) == {
        "1_zqx person": {"n_repeats": 1, "img_count": 33}
    }
    assert json.loads(metadata["ss_tag_frequency"])["1_zqx person"]["smile"] == 4


# All that train_network.py of sd-scripts (February 2026) writes for a training with folders.
KOHYAS_FIELDS = """
session_id training_started_at output_name learning_rate text_encoder_lr unet_lr num_train_images
num_validation_images num_reg_images num_batches_per_epoch num_epochs gradient_checkpointing
gradient_accumulation_steps max_train_steps lr_warmup_steps lr_scheduler network_module network_dim
network_alpha network_dropout mixed_precision full_fp16 v2 base_model_version clip_skip
max_token_length cache_latents seed lowram noise_offset multires_noise_iterations
multires_noise_discount adaptive_noise_scale zero_terminal_snr training_comment
sd_scripts_commit_hash optimizer max_grad_norm caption_dropout_rate caption_dropout_every_n_epochs
caption_tag_dropout_rate face_crop_aug_range prior_loss_weight min_snr_gamma scale_weight_norms
ip_noise_gamma debiased_estimation noise_offset_random_strength ip_noise_gamma_random_strength
loss_type huber_schedule huber_scale huber_c fp8_base fp8_base_unet validation_seed validation_split
max_validation_steps validate_every_n_epochs validate_every_n_steps resize_interpolation
batch_size_per_device total_batch_size resolution color_aug flip_aug random_crop shuffle_caption
enable_bucket bucket_no_upscale min_bucket_reso max_bucket_reso keep_tokens dataset_dirs
reg_dataset_dirs tag_frequency bucket_info sd_model_hash new_sd_model_hash sd_model_name
training_finished_at steps epoch
"""


def test_every_field_of_sd_scripts_is_there(metadata):
    assert {f"ss_{name}" for name in KOHYAS_FIELDS.split()} - metadata.keys() == set()


def test_a_batch_counts_all_that_a_step_sees_and_v_is_told():
    from dataclasses import replace

    from settings import composed

    config = composed(
        *("model=sd15", "model.checkpoint=x", "data=folder", "data.dir=x", "data.batch_size=3"),
        *("trainer.accumulate_grad_batches=4", "schedule=constant", "schedule.warmup_steps=5"),
    )
    told = build_metadata(config, replace(FACTS, prediction_type="v_prediction"))
    assert told["ss_total_batch_size"] == "12" and told["ss_base_model_version"] == "sd_v1_v"
    assert told["ss_lr_scheduler"] == "constant_with_warmup" and told["ss_lr_warmup_steps"] == "5"
    assert json.loads(told["ss_bucket_info"])["mean_img_ar_error"] == 0.0625
    assert "growth_rate=1.02" in told["ss_optimizer"]


def test_no_warm_up_is_a_whole_zero(metadata):
    assert metadata["ss_lr_warmup_steps"] == "0"


def test_no_path_of_the_users_machine_reaches_the_metadata():
    from settings import composed

    config = composed("data=folder", "data.dir=/home/someone/pictures", "model.checkpoint=/m/x")
    text = json.dumps(build_metadata(config, FACTS))
    assert "/home/someone" not in text and "/m/x" not in text


@pytest.mark.parametrize("size", [0, 5, 60, 200])
def test_a_truncated_file_is_refused_by_name(tmp_path, size):
    write_lora(tmp_path / "cut.safetensors", TENSORS, {})
    content = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:size])
    with pytest.raises(LabError, match=r"cut\.safetensors is not a complete safetensors file"):
        read_lora(tmp_path / "cut.safetensors")


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(LabError, match=r"none\.safetensors is missing"):
        read_lora(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    "key",
    [
        "unet.down_blocks.0.attentions.0.proj_in.lora_A.weight",
        "lora_unet_mid_block_attentions_0_proj_in.hada_w1_a",
        "lora_unet_mid_block_attentions_0_proj_in.diff_b",
        "model.diffusion_model.out.2.weight",
    ],
)
def test_what_is_no_plain_lora_is_refused_with_its_key(tmp_path, key):
    write_lora(tmp_path / "a", {**TENSORS, key: torch.ones(2)}, {})
    with pytest.raises(LabError, match=key.replace(".", r"\.")):
        read_lora(tmp_path / "a")


def test_half_a_module_is_refused_with_the_missing_key(tmp_path):
    tensors = {key: value for key, value in TENSORS.items() if "lora_up" not in key}
    write_lora(tmp_path / "a", tensors, {})
    with pytest.raises(LabError, match=r"lacks key .*proj_in\.lora_up\.weight"):
        read_lora(tmp_path / "a")


def test_a_failed_write_leaves_no_file(tmp_path):
    (tmp_path / "blocked").write_text("a file, not a folder")
    with pytest.raises(LabError, match="blocked"):
        write_lora(tmp_path / "blocked" / "a.safetensors", TENSORS, {})
    assert [path.name for path in tmp_path.iterdir()] == ["blocked"]


@pytest.mark.parametrize("ours", [True, False])
def test_a_flipped_bit_in_a_file_of_ours_is_refused_and_in_one_of_others_told(
    tmp_path, caplog, ours
):
    path, key = tmp_path / "a.safetensors", "lora_unet_mid_block_attentions_0_proj_in"
    tensors = {f"{key}.lora_{side}.weight": torch.ones(2, 2) for side in ("down", "up")}
    write_lora(path, tensors, {SETTINGS: "{}"} if ours else {})
    assert read_lora(path)[0].keys() == tensors.keys() and not caplog.records
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)
    if ours:
        with pytest.raises(LabError, match=r"a\.safetensors is damaged"):
            read_lora(path)
    else:
        read_lora(path)
        assert "its sshs_model_hash names other tensors" in caplog.text
