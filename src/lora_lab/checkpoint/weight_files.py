"""Weights of a base checkpoint on disk: diffusers folders, SD 1.5 single files, old spellings.

Everything comes back as tensors under the names that today's diffusers and transformers use.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from lora_lab.checkpoint.families.description import Family
from lora_lab.checkpoint.old_names import modern_names
from lora_lab.checkpoint.refusals import refuse_other_file, refuse_other_folder
from lora_lab.errors import LabError
from lora_lab.files import require_regular

_PICKLES = (".ckpt", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class NoiseFacts:
    """What a checkpoint or the config says of the noise schedule; None where nothing is said."""

    prediction_type: str | None = None
    """epsilon or v_prediction."""
    zero_terminal_snr: bool | None = None

    def with_config(
        self, prediction_type: str | None, zero_terminal_snr: bool | None
    ) -> "NoiseFacts":
        """The same, with what the config says in the first place."""
        return NoiseFacts(
            self.prediction_type if prediction_type is None else prediction_type,
            self.zero_terminal_snr if zero_terminal_snr is None else zero_terminal_snr,
        )

    def settings(self) -> dict[str, Any]:
        """As diffusers' schedulers take them."""
        said = {
            "prediction_type": self.prediction_type,
            "rescale_betas_zero_snr": self.zero_terminal_snr,
        }
        return {key: value for key, value in said.items() if value is not None}


def read_checkpoint(
    path: Path, allow_pickle: bool, family: Family
) -> tuple[Path, dict[str, dict[str, Tensor]], NoiseFacts]:
    """Read a diffusers folder or a single file.

    Returns:
        The folder that holds configs and tokenizer, each part's tensors, and what the checkpoint
        itself says of the noise schedule besides its config.

    Raises:
        LabError: It is missing, damaged, or of another family.
    """
    if not path.is_dir():
        return family.configs, *read_single_file(path, allow_pickle, family)
    refuse_other_folder(path, family)
    parts = {part: read_part(path / part, allow_pickle, family) for part in family.parts}
    return path, parts, NoiseFacts()


def read_part(folder: Path, allow_pickle: bool, family: Family) -> dict[str, Tensor]:
    """Read the weights of one part (unet, text_encoder, vae) of a diffusers folder.

    Raises:
        LabError: Folder or weights are missing or damaged, or a pickle that is not allowed.
    """
    if not folder.is_dir():
        raise LabError(
            f"{folder} is missing: model.checkpoint must be a complete diffusers folder "
            "(unet, text_encoder, tokenizer, vae, scheduler)"
        )
    stems = sorted(set(family.weight_stems.values()))
    for suffix in (".safetensors", ".fp16.safetensors"):
        for stem in stems:
            path = folder / f"{stem}{suffix}"
            if path.is_file():
                return modern_names(read_weights(path, allow_pickle))
    for path in sorted(folder.iterdir()):
        if path.suffix in _PICKLES:
            return modern_names(read_weights(path, allow_pickle))
    raise LabError(f"{folder} holds no weights: diffusion_pytorch_model.safetensors is missing")


def read_weights(path: Path, allow_pickle: bool) -> dict[str, Tensor]:
    """Read one file of weights.

    Raises:
        LabError: Missing, damaged, or a pickle although `allow_pickle` is false.
    """
    if path.suffix in _PICKLES and not allow_pickle:
        raise LabError(
            f"{path} is a pickle, which can run code: convert it to safetensors, "
            "or set model.allow_pickle=true if you trust its source"
        )
    try:
        require_regular(path)
        return _read_pickle(path) if path.suffix in _PICKLES else load_file(path)
    except FileNotFoundError:
        raise LabError(f"{path} is missing: set model.checkpoint to a file that exists") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or unsafe pickle
        reason = str(error).splitlines()[0]
        raise LabError(
            f"{path} cannot be read with weights_only=True ({reason}): convert it to safetensors"
        ) from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise LabError(f"{path} holds no dictionary of tensors: it is not a checkpoint")
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}


def read_single_file(
    path: Path, allow_pickle: bool, family: Family
) -> tuple[dict[str, dict[str, Tensor]], NoiseFacts]:
    """Split a checkpoint that is a single file into the parts of a diffusers folder.

    Args:
        path: .safetensors, or .ckpt when `allow_pickle` is true.
        allow_pickle: See `read_weights`.
        family: What the file must belong to.

    Returns:
        Part -> its tensors, and what the file says of its noise schedule.

    Raises:
        LabError: The file is missing, damaged or of another family.
    """
    metadata: dict[str, str] = {}
    if path.suffix not in _PICKLES:
        shapes, metadata = read_header(path)
        refuse_other_file(path, shapes, family)
    tensors = read_weights(path, allow_pickle)
    refuse_other_file(path, {key: tuple(t.shape) for key, t in tensors.items()}, family)
    return family.split(tensors, family.configs), _noise_facts(set(tensors), metadata)


def read_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """Shapes and metadata of a safetensors file, without its tensors.

    Raises:
        LabError: The file is missing or damaged.
    """
    try:
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            return shapes, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _noise_facts(keys: set[str], metadata: dict[str, str]) -> NoiseFacts:
    """From `modelspec.prediction_type`, or from the empty tensors `v_pred` and `ztsnr`."""
    said = metadata.get("modelspec.prediction_type")
    v_prediction = said in ("v", "v_prediction") or "v_pred" in keys
    return NoiseFacts(
        "v_prediction" if v_prediction else None,
        True if "ztsnr" in keys else None,
    )


def _damaged(path: Path, error: Exception) -> LabError:
    return LabError(
        f"{path} is not a complete safetensors file ({error}): download or copy it again"
    )
