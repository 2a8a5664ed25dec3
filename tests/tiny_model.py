"""A complete Stable Diffusion in the diffusers layout, with random weights, 1.5 MB in size.

Everything that reads a base checkpoint reads this one too. Its pictures mean nothing.
"""

import json
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TEXT_WIDTH = 32
MERGES = [
    "t h",
    "th e</w>",
    "i n",
    "a n",
    "an d</w>",
    "p e",
    "r s",
    "o n</w>",
    "pe rs",
    "pers on</w>",
]
"""Byte pairs that become one token, in the order in which they are merged."""


def byte_symbols() -> list[str]:
    """The 256 printable characters that stand for bytes in CLIP's byte-pair vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    replaced = [byte for byte in range(256) if byte not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(replaced))]


def tiny_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with a vocabulary of bytes, bytes at the end of a word, and ten merges."""
    symbols = byte_symbols()
    tokens = symbols + [f"{symbol}</w>" for symbol in symbols]
    tokens += [merge.replace(" ", "") for merge in MERGES]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    merges = [tuple(merge.split()) for merge in MERGES]
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)
    assert len(tokenizer) == len(vocab)
    return tokenizer


def tiny_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """CLIP's text tower with 3 layers of 32 channels."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


def tiny_unet() -> UNet2DConditionModel:
    """Two levels, both with cross-attention, 16 and 32 channels, 8x8 latents."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,
        norm_num_groups=8,
    )


def tiny_vae() -> AutoencoderKL:
    """Three levels, so 4 pixels a latent; 32 px images."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=0.5,
    )


def sd15_noise_scheduler() -> DDPMScheduler:
    """The training schedule of Stable Diffusion 1.5: scaled-linear betas, epsilon-prediction."""
    return DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def make_tiny_base(folder: Path, seed: int = 0) -> Path:
    """Write the tiny model into a diffusers folder.

    Args:
        folder: Where it goes; made if it is missing.
        seed: Another seed makes another checkpoint of the same architecture.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        tiny_unet().save_pretrained(folder / "unet")
        tiny_vae().save_pretrained(folder / "vae")
        tiny_text_encoder(tokenizer).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    sd15_noise_scheduler().save_pretrained(folder / "scheduler")
    write_index(folder)
    return folder


def write_index(folder: Path) -> None:
    """What diffusers' pipelines ask of a folder: the classes of its parts."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
