"""The LoRA file of kohya-ss/sd-scripts: names, bytes and hashes.

Each module has three tensors, for example `lora_unet_mid_block_attentions_0_proj_in` with
`.lora_down.weight` (dim, in[, kh, kw]), `.lora_up.weight` (out, dim[, 1, 1]) and `.alpha` ();
the change of its weight is `up @ down * alpha / dim`. `layouts` has the other kinds.
"""

import hashlib
import json
import logging
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lora_lab.checkpoint.families.sd15 import SD15
from lora_lab.errors import LabError
from lora_lab.files import atomic_path, require_regular
from lora_lab.kohya.own_fields import SETTINGS
from lora_lab.lora_file.layouts import layer_changes

log = logging.getLogger(__name__)


def kohya_key(part: str, module_path: str, leaf: str) -> str:
    """Name of a tensor in kohya's file.

    Args:
        part: "unet" or "text_encoder".
        module_path: The module's path in diffusers' or transformers 5's model, with dots.
        leaf: "lora_down.weight", "lora_up.weight" or "alpha".
    """
    return f"{SD15.lora_names[part]}{module_path.replace('.', '_')}.{leaf}"


def write_lora(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a LoRA file, whole or not at all, with its hashes added to the metadata.

    The same tensors and metadata give the same bytes.

    Raises:
        LabError: The folder is not writable or the disk is full.
    """
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    model_hash, legacy_hash = lora_hashes(tensors, metadata)
    metadata = {**metadata, "sshs_model_hash": model_hash, "sshs_legacy_hash": legacy_hash}
    with atomic_path(path) as temporary:
        temporary.write_bytes(_sorted_metadata(save(tensors, metadata)))


def _sorted_metadata(content: bytes) -> bytes:
    """The same file with its metadata in the order of the keys: safetensors' own order varies."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def lora_hashes(tensors: dict[str, Tensor], metadata: dict[str, str]) -> tuple[str, str]:
    """The hashes by which web UIs recognise a LoRA.

    Both are taken of a file that holds the `ss_*` metadata only (sd-scripts,
    `precalculate_safetensors_hashes`).

    Returns:
        sshs_model_hash (64 hex digits, of all bytes after the header) and sshs_legacy_hash
        (8 hex digits, of the 64 KiB after the first MiB).
    """
    kept = {key: value for key, value in metadata.items() if key.startswith("ss_")}
    content = save(tensors, kept)
    after_header = 8 + int.from_bytes(content[:8], "little")
    model_hash = hashlib.sha256(memoryview(content)[after_header:]).hexdigest()
    legacy_hash = hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]
    return model_hash, legacy_hash


def read_lora(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a LoRA file in kohya's layout, ours or not.

    Returns:
        Tensors and metadata (empty if the file has none).

    Raises:
        LabError: Missing, truncated, not safetensors, not a LoRA, DoRA, LoHa or LoKr in kohya's
            layout, or a file of ours with other tensors than were written.
    """
    try:
        require_regular(path)
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise LabError(f"{path} is missing: name a LoRA file that exists") from None
    except (SafetensorError, OSError) as error:
        raise LabError(
            f"{path} is not a complete safetensors file ({error}): download or train it again"
        ) from None
    layer_changes(tensors, str(path))
    _check_hash(path, tensors, metadata)
    return tensors, metadata


def _check_hash(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Hold the tensors against the hash in the metadata, which programs of others may leave behind.

    Raises:
        LabError: A file of ours holds other tensors than were written.
    """
    told = metadata.get("sshs_model_hash")
    if told is None or told == lora_hashes(tensors, metadata)[0]:
        return
    if SETTINGS in metadata:
        raise LabError(
            f"{path} is damaged: its tensors are not those that its sshs_model_hash names; "
            "copy it or train it anew"
        )
    log.warning(
        "%s: its sshs_model_hash names other tensors; it was changed by a program that left the "
        "hash as it was, or it is damaged",
        path,
    )


def lora_hash(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """The first 12 digits of sshs_model_hash: what A1111 writes as `Lora hashes`."""
    return (metadata.get("sshs_model_hash") or lora_hashes(tensors, metadata)[0])[:12]
