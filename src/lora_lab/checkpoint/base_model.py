"""The base checkpoint: UNet, text encoder, tokenizer, VAE and training schedule.

Modules are built on the meta device and filled straight from safetensors, because filling them with
random numbers first takes longer than reading the file.

Shapes: B batch, C hidden size of the text encoder.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from lora_lab.checkpoint.embedded import is_hub_name, locate
from lora_lab.checkpoint.families.description import Family
from lora_lab.checkpoint.families.sd15 import SD15
from lora_lab.checkpoint.hub import fetch_folder
from lora_lab.checkpoint.weight_files import read_checkpoint
from lora_lab.errors import LabError, one_line
from lora_lab.files import read_json

MAX_LAYERS = 1000
"""In a row; the text encoder of Stable Diffusion has 12."""
MAX_SIZE = 10_000_000
"""Of a layer or a vocabulary; Stable Diffusion's vocabulary has 49408 tokens."""
MAX_TIMESTEPS = 100_000
"""Of the noise schedule; Stable Diffusion has 1000. A table of several numbers each is made."""


@dataclass
class BaseModel:
    """A Stable Diffusion 1.5-style model: frozen, fp32, in eval mode, on the CPU.

    A part that was not asked for has its config but no weights (it stands on the meta device).
    """

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    vae: AutoencoderKL
    noise_scheduler: DDPMScheduler
    name: str
    """What the checkpoint is called in grids and metadata: the folder's or file's name."""
    path: Path
    fingerprint: str
    """sha256 over names, dtypes, shapes and bytes of the UNet's and text encoder's weights."""
    vae_fingerprint: str
    """The same over the VAE's weights."""
    family: Family = SD15

    @property
    def latent_factor(self) -> int:
        """Pixels a latent, per side."""
        return self.family.latent_factor(self.vae.config)

    @property
    def size_step(self) -> int:
        """What the sides of an image are multiples of, in pixels."""
        return self.latent_factor * self.family.unet_factor(self.unet.config)


def load_base(
    checkpoint: str,
    *,
    allow_pickle: bool = False,
    parts: Iterable[str] = SD15.parts,
    prediction_type: str | None = None,
    zero_terminal_snr: bool | None = None,
) -> BaseModel:
    """Read a diffusers folder or a single-file SD 1.5 checkpoint.

    Args:
        checkpoint: A folder, a file, `embedded:<name>`, or the name of a repository on a hub.
        allow_pickle: Whether .ckpt, .pt and .bin files may be read (with `weights_only=True`).
        parts: Which of unet, text_encoder and vae to fill with weights.
        prediction_type: What the UNet predicts, epsilon or v_prediction; None for what the
            checkpoint says.
        zero_terminal_snr: Whether the betas are rescaled so that the last timestep is pure noise
            (arXiv 2305.08891, algorithm 1); None for what the checkpoint says.

    Raises:
        LabError: The folder or file is missing, damaged, or does not hold what the config says.
    """
    path = fetch_folder(checkpoint) if is_hub_name(checkpoint) else locate(checkpoint)
    family = SD15
    folder, tensors, noise_facts = read_checkpoint(path, allow_pickle, family)
    facts = noise_facts.with_config(prediction_type, zero_terminal_snr)
    modules = {part: _build(part, folder, family) for part in family.parts}
    scale = modules["vae"].config["scaling_factor"]
    if not isinstance(scale, int | float) or not 0 < scale < math.inf:
        raise LabError(
            f"{folder / 'vae' / 'config.json'}: scaling_factor must be a number above 0, got "
            f"{one_line(scale, 40)}: copy it again"
        )
    for part in parts:
        fill(modules[part], tensors[part], path / part if path.is_dir() else path)
    return BaseModel(
        **modules,
        tokenizer=load_tokenizer(folder / "tokenizer", modules["text_encoder"].config.vocab_size),
        noise_scheduler=_scheduler(folder / "scheduler", facts.settings()),
        name=checkpoint_name(checkpoint, path),
        path=path,
        fingerprint=fingerprint(tensors["unet"], tensors["text_encoder"]),
        vae_fingerprint=fingerprint(tensors["vae"]),
        family=family,
    )


def _build(part: str, folder: Path, family: Family) -> Any:
    """The module that a part's config describes, on the meta device."""
    path = folder / part / "config.json"
    config = read_config(path)
    _refuse_giants(config, path)
    with torch.device("meta"), _told_as_damaged(path):
        return family.build[part](config)


def _refuse_giants(config: dict[str, Any], path: Path) -> None:
    """Refuse numbers that no such model has: its modules would be built without end.

    Raises:
        LabError: Names the key.
    """
    for key, value in config.items():
        for number in value if isinstance(value, list) else [value]:
            most = MAX_LAYERS if "layers" in key else MAX_SIZE
            if isinstance(number, int) and abs(number) > most:
                raise LabError(
                    f"{path}: {key} must be at most {most}, got {one_line(number, 40)}: copy it"
                )


def _scheduler(folder: Path, settings: dict[str, Any]) -> DDPMScheduler:
    path = folder / "scheduler_config.json"
    config = read_config(path)
    steps = config.get("num_train_timesteps", 1000)
    if not isinstance(steps, int) or not 1 <= steps <= MAX_TIMESTEPS:
        raise LabError(
            f"{path}: num_train_timesteps must be from 1 to {MAX_TIMESTEPS}, got "
            f"{one_line(steps, 40)}: copy it again"
        )
    with _told_as_damaged(path):
        return DDPMScheduler.from_config(config | settings)


@contextmanager
def _told_as_damaged(path: Path) -> Iterator[None]:
    """Name the file whose content diffusers or transformers can't build anything from."""
    try:
        yield
    except Exception as error:  # they raise many kinds for a key or value that they don't expect
        reason = one_line(f"{type(error).__name__}: {error}", 200)
        raise LabError(f"{path} describes nothing that can be built ({reason}): copy it") from error


def checkpoint_name(checkpoint: str, path: Path) -> str:
    """What a checkpoint is called: its file, its folder, or its repository on the hub."""
    if is_hub_name(checkpoint):
        return checkpoint.rpartition("/")[2]
    return path.name if path.is_dir() else path.stem


def read_config(path: Path) -> dict[str, Any]:
    """Read a JSON config of one part.

    Raises:
        LabError: The file is missing or not JSON.
    """
    try:
        config = read_json(path)
    except FileNotFoundError:
        raise LabError(
            f"{path} is missing: model.checkpoint must be a complete diffusers folder "
            "(unet, text_encoder, tokenizer, vae, scheduler) or a single .safetensors file"
        ) from None
    except (OSError, ValueError) as error:
        raise LabError(f"{path} cannot be read as JSON ({error}): copy it again") from None
    if not isinstance(config, dict):
        raise LabError(f"{path} must hold a JSON object: copy it again")
    return config


def load_tokenizer(folder: Path, vocab_size: int) -> CLIPTokenizer:
    """Read CLIP's tokenizer and hold its size against the text encoder's.

    transformers makes a tokenizer of 2 tokens, without a word, when files are missing.

    Raises:
        LabError: The folder is missing or the sizes differ.
    """
    known = ("tokenizer.json", "vocab.json")
    if not any((folder / name).is_file() for name in known):
        raise LabError(f"{folder} holds neither {' nor '.join(known)}: copy the tokenizer folder")
    with _told_as_damaged(folder):
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    if len(tokenizer) != vocab_size:
        raise LabError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, "
            f"the text encoder {vocab_size}: they belong to different checkpoints"
        )
    return tokenizer


def fill(module: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Put a file's tensors into a module that stands on the meta device, as fp32.

    Raises:
        LabError: A key is missing, unknown or of another shape; names the source and the first key.
    """
    expected = module.state_dict()
    for problem, keys in (
        ("lacks", expected.keys() - tensors.keys()),
        ("holds the unknown", tensors.keys() - expected.keys()),
    ):
        if keys:
            raise LabError(
                f"{source} {problem} key {sorted(keys)[0]} ({len(keys)} in all): "
                "weights and config belong to different models, or the file is damaged"
            )
    for key, tensor in expected.items():
        if tensors[key].shape != tensor.shape:
            raise LabError(
                f"{source}: {key} has shape {tuple(tensors[key].shape)}, "
                f"the config says {tuple(tensor.shape)}"
            )
    weights = {key: tensor.to(torch.float32) for key, tensor in tensors.items()}
    module.load_state_dict(weights, assign=True)
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:
            parent, _, leaf = name.rpartition(".")
            positions = torch.arange(buffer.shape[-1]).expand(buffer.shape)
            setattr(module.get_submodule(parent), leaf, positions)
    module.requires_grad_(False)
    module.eval()


def fingerprint(*parts: dict[str, Tensor]) -> str:
    """sha256 over the sorted names, dtypes, shapes and bytes of tensors, as 64 hex digits."""
    digest = hashlib.sha256()
    for tensors in parts:
        for key in sorted(tensors):
            tensor = tensors[key].contiguous()
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def encode_prompt_hidden(text_encoder: CLIPTextModel, input_ids: Tensor, clip_skip: int) -> Tensor:
    """Encode tokens as A1111 and kohya do: a late hidden state, then the final layer norm.

    Args:
        text_encoder: CLIP's text tower; gradients flow if its weights ask for them.
        input_ids: int64, (B, 77).
        clip_skip: Which hidden state from the end; 1 is the last layer.

    Returns:
        (B, 77, C).

    Raises:
        LabError: clip_skip is not within 1 and the number of layers.
    """
    layers = text_encoder.config.num_hidden_layers
    if not 1 <= clip_skip <= layers:
        raise LabError(
            f"model.clip_skip must be from 1 to {layers} for this text encoder, got {clip_skip}"
        )
    output = text_encoder(input_ids=input_ids, output_hidden_states=True)
    return text_encoder.final_layer_norm(output.hidden_states[-clip_skip])
