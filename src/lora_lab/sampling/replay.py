"""Draws an image again from what its PNG tells: the same bytes, or a reason why not.

The base and the LoRA are looked for where the settings say, then in the folders above the image.
They are recognised by the fingerprints of their weights: another file of the same name is refused.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import torch

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.config import SamplingConfig
from lora_lab.errors import LabError
from lora_lab.files import make_folder, read_yaml
from lora_lab.images.opening import open_picture
from lora_lab.images.png_info import ImageRecipe, read_recipe, write_image
from lora_lab.lora_file.merge import load_model
from lora_lab.run_folder.record import CONFIG
from lora_lab.sampling.lora_files import LoRAFile, read_lora_file
from lora_lab.sampling.pipeline import LoRAPipeline
from lora_lab.sampling.trained_base import with_base_of

log = logging.getLogger(__name__)
ABOVE = 6
"""Folders above the image that are searched: <sweep>/<run>/images/<checkpoint>/<prompt>/."""


def replay(
    png: Path, output: Path, config: SamplingConfig, lora: Path | None, threads: int | None
) -> Path:
    """Draw an image of ours again.

    Args:
        png: The image.
        output: Folder of the new one.
        config: Its checkpoints, lora_dirs and embeddings say where moved files lie.
        lora: Where the LoRA lies now; None: near the image.
        threads: CPU threads; None: as many as the image was drawn with.

    Returns:
        The new image's path.

    Raises:
        LabError: The image is not ours, a file is not found or another one, or the new image
            differs (another version of PyTorch, another thread count).
    """
    recipe = read_recipe(png)
    if recipe is None:
        raise LabError(
            f"{png} can't be drawn again: it is missing, damaged, or holds no settings of ours"
        )
    torch.set_num_threads(threads or recipe.threads)
    run_dir = next((one for one in _above(png) if (one / CONFIG).is_file()), None)
    if run_dir is not None:
        config = with_base_of(config, run_dir)
    base = _find_base(png, recipe, config)
    file = _find_lora(png, recipe, lora) if recipe.lora is not None else None
    image, drawn = LoRAPipeline(base, config).draw_again(recipe, file)
    path = make_folder(output) / png.name
    if path.resolve() == png.resolve():
        path = path.with_stem(f"{png.stem}-again")
    write_image(path, image, drawn)
    if pixels(path) != pixels(png):
        raise LabError(f"{path} was drawn, but it differs from {png}: {_reason(recipe, drawn)}")
    return path


def _reason(before: ImageRecipe, now: ImageRecipe) -> str:
    """The first thing that was not the same."""
    for name in ("torch", "threads"):
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            return f"{name} was {old}, is {new}"
    return "another machine rounds in another way"


def pixels(path: Path) -> bytes:
    """The pixels of an image."""
    with open_picture(path) as image:
        return image.convert("RGB").tobytes()


def _above(png: Path) -> Iterator[Path]:
    yield from list(png.resolve().parents)[:ABOVE]


def _find_base(png: Path, recipe: ImageRecipe, config: SamplingConfig) -> BaseModel:
    """The checkpoint that drew: of the settings, of the config.yaml files above, or embedded.

    Raises:
        LabError: None of them is it; names those that were tried.
    """
    tried = []
    candidates = [*config.checkpoints, *_named_checkpoints(png), f"embedded:{recipe.model}"]
    for checkpoint in dict.fromkeys(candidates):
        if _stem(checkpoint) != recipe.model:
            continue
        try:
            base = load_model(checkpoint, config)
        except LabError as error:
            tried.append(f"{checkpoint}: {error}")
            continue
        hashes = base.fingerprint[:10], base.vae_fingerprint[:10]
        if hashes == (recipe.model_hash, recipe.vae_hash):
            return base
        tried.append(f"{checkpoint} has the hashes {' and '.join(hashes)}")
    raise LabError(
        f"{png} was drawn by {recipe.model} ({recipe.model_hash}, VAE {recipe.vae_hash}), which "
        f"is not found: set sampling.checkpoints=[<its path>]; tried: {'; '.join(tried) or 'none'}"
    )


def _stem(checkpoint: str) -> str:
    name = Path(checkpoint.removeprefix("embedded:")).name
    return name.removesuffix(".safetensors").removesuffix(".ckpt")


def _named_checkpoints(png: Path) -> list[str]:
    """Checkpoints that the config.yaml files above an image name."""
    names: list[str] = []
    for folder in _above(png):
        try:
            values = read_yaml(folder / "config.yaml")
            names += [*values["sampling"]["checkpoints"], values["model"]["checkpoint"]]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return [str(name) for name in names]


def _find_lora(png: Path, recipe: ImageRecipe, lora: Path | None) -> LoRAFile:
    """The LoRA file: the one that is named, or one of its name in a lora/ folder above.

    Raises:
        LabError: It is not found, or another one of that name.
    """
    name = f"{recipe.lora}.safetensors"
    candidates = [lora] if lora is not None else [folder / name for folder in _folders(png)]
    tried = []
    for path in candidates:
        if lora is None and not path.is_file():
            continue
        file = read_lora_file(path)
        if file.digest == recipe.lora_digest:
            return LoRAFile(file.path.with_name(name), file.tensors, file.hash, file.digest)
        tried.append(f"{path} has the hash {file.digest}")
    raise LabError(
        f"{png} was drawn with the LoRA {recipe.lora} ({recipe.lora_digest}), which is not found: "
        f"set lora=<its path>; tried: {'; '.join(tried) or 'the lora/ folders above the image'}"
    )


def _folders(png: Path) -> Iterator[Path]:
    for folder in _above(png):
        yield folder / "lora"
        yield folder
