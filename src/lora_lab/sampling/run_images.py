"""The images of a run: drawn from each of its LoRA files on one checkpoint, kept as PNG files.

An image that is there already with the same recipe is not drawn again. All images of one LoRA file
are drawn in the same batches or not at all, because other company in a batch changes an image by
rounding.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from PIL import Image
from torch import Tensor

from lora_lab.base_model import BaseModel
from lora_lab.config import SamplingConfig
from lora_lab.errors import LabError
from lora_lab.kohya import lora_hash, read_lora
from lora_lab.merge import LoRAMerger
from lora_lab.prompts import LoRATag
from lora_lab.randomness import derive_seed
from lora_lab.sampling.generate import DrawSettings, ImageRequest, draw_images
from lora_lab.sampling.names import PromptNames
from lora_lab.sampling.png_info import ImageRecipe, read_recipe, write_image

log = logging.getLogger(__name__)

KINDS = ("simple", "complex", "random")
SUBJECT = "{subject}"


@dataclass(frozen=True)
class PlannedImage:
    """One image of a LoRA."""

    kind: str
    index: int
    """Number of the prompt within its kind, from 0."""
    request: ImageRequest
    problem: str = ""
    """Why the prompt can't be drawn, such as an unknown wildcard."""


@dataclass(frozen=True)
class Outcome:
    """An image's file, or why there is none."""

    path: Path | None
    problem: str = ""


def plan_images(config: SamplingConfig, final: bool) -> list[PlannedImage]:
    """What is drawn from a LoRA: both fixed prompts, and from a final one the random prompts."""
    prompts = config.prompts
    planned = [("simple", 0, prompts.simple, config.seed)]
    planned += [("complex", 0, prompts.complex, config.seed)]
    if final:
        pairs = zip(prompts.random, config.random_seeds, strict=True)
        planned += [("random", index, text, seed) for index, (text, seed) in enumerate(pairs)]
    names = PromptNames(config)
    images = []
    for kind, index, text, seed in planned:
        try:
            prompt, problem = prompt_text(text, config, kind, index, names), ""
        except LabError as error:
            prompt, problem = text, first_line(error)
        request = ImageRequest(prompt, config.negative, seed)
        images.append(PlannedImage(kind, index, request, problem))
    return images


def prompt_text(
    text: str, config: SamplingConfig, kind: str, index: int, names: PromptNames
) -> str:
    """A prompt of the config with its subject and with its choices made.

    Raises:
        LabError: It names a wildcard that is unknown.
    """
    choice_seed = derive_seed(config.seed, "prompt", kind, index)
    return names.expand(text.replace(SUBJECT, config.subject or SUBJECT), choice_seed)


def with_subject(config: SamplingConfig, loras: Iterable[Path]) -> SamplingConfig:
    """Fill in the subject of the prompts where the config leaves it to the LoRA.

    Args:
        config: How to draw.
        loras: LoRA files; the first that tells its data folder `<repeats>_<trigger> <class>`
            tells the subject.

    Raises:
        LabError: A prompt needs the subject and no file tells it.
    """
    prompts = config.prompts
    needed = any(SUBJECT in text for text in (prompts.simple, prompts.complex, *prompts.random))
    if config.subject is not None or not needed:
        return config
    for lora in loras:
        subject = trained_subject(lora)
        if subject:
            return replace(config, subject=subject)
    raise LabError(
        f"sampling.subject is null and no LoRA file tells it, but a prompt holds {SUBJECT}: "
        'set it, such as sampling.subject="zqx person"'
    )


def trained_subject(lora: Path) -> str | None:
    """`<trigger> <class>` of the largest data folder that a LoRA file names; None if unknown."""
    try:
        folders = json.loads(read_lora(lora)[1]["ss_dataset_dirs"])
        name = max(folders, key=lambda folder: folders[folder]["img_count"])
    except (LabError, KeyError, ValueError, TypeError):
        return None
    return re.sub(r"^\d+_", "", name).strip() or None


def draw_settings(config: SamplingConfig) -> DrawSettings:
    """What all images of a config share."""
    return DrawSettings(
        sampler=config.sampler,
        steps=config.steps,
        guidance=config.guidance,
        width=config.width,
        height=config.height,
        clip_skip=config.clip_skip,
        batch_size=config.batch_size,
    )


def image_path(folder: Path, checkpoint: str, planned: PlannedImage, step: int) -> Path:
    """`<folder>/<checkpoint>/<kind>/<step>.png`; random images are numbered from 1."""
    number = f"-{planned.index + 1}" if planned.kind == "random" else ""
    return folder / checkpoint / planned.kind / f"{step:08d}{number}.png"


def draw_lora(
    merger: LoRAMerger,
    base: BaseModel,
    lora: Path,
    files: dict[Path, ImageRequest],
    config: SamplingConfig,
) -> tuple[dict[Path, Outcome], bool]:
    """Draw the images of one LoRA file, unless they are all there.

    Args:
        merger: Of the base; stands as without LoRAs afterwards.
        base: The checkpoint that draws.
        lora: The LoRA file.
        files: Where each image goes.
        config: How to draw.

    Returns:
        What came of each file, and whether anything was drawn. A LoRA that can't be read or does
        not fit, and an image with NaN, come back as problems.
    """
    names = PromptNames(config)
    try:
        read = read_lora(lora)
    except LabError as error:
        return _none(lora, files, error), False
    outcomes: dict[Path, Outcome] = {}
    drew = False
    for tags, group in _by_networks(names, files, outcomes).items():
        try:
            found, drawn = _draw_group(merger, base, lora, read, group, tags, names)
        except (LabError, RuntimeError) as error:
            found, drawn = _none(lora, group, error), False
        finally:
            merger.restore()
        outcomes |= found
        drew = drew or drawn
    return outcomes, drew


def _by_networks(
    names: PromptNames, files: dict[Path, ImageRequest], outcomes: dict[Path, Outcome]
) -> dict[tuple[LoRATag, ...], dict[Path, ImageRequest]]:
    """Images by the LoRAs that their prompts name; a tag that can't be followed is an outcome."""
    groups: dict[tuple[LoRATag, ...], dict[Path, ImageRequest]] = {}
    for path, request in files.items():
        try:
            groups.setdefault(names.loras(request.prompt), {})[path] = request
        except LabError as error:
            outcomes |= _none(path, [path], error)
    return groups


def _draw_group(
    merger: LoRAMerger,
    base: BaseModel,
    lora: Path,
    read: tuple[dict[str, Tensor], dict[str, str]],
    files: dict[Path, ImageRequest],
    tags: tuple[LoRATag, ...],
    names: PromptNames,
) -> tuple[dict[Path, Outcome], bool]:
    """Draw images that share all LoRAs, unless they are all there."""
    config = names.config
    width = base.text_encoder.config.hidden_size
    named = names.hashes(tags, width)
    recipes = image_recipes(base, lora, lora_hash(*read), files, config, named)
    if all(read_recipe(path) == recipe for path, recipe in recipes.items()):
        return {path: Outcome(path) for path in files}, False
    merger.apply([(read[0], config.lora_weight), *names.changes(tags)])
    requests, settings = list(files.values()), draw_settings(config)
    drawn = draw_images(base, requests, settings, names.embeddings(width))
    return {
        path: _keep(path, result.image, result.problem, recipes[path])
        for path, result in zip(files, drawn, strict=True)
    }, True


def _none(source: Path, files: Iterable[Path], error: Exception) -> dict[Path, Outcome]:
    """Nothing came of these images."""
    log.warning("%s: %s", source, error)
    return {path: Outcome(None, first_line(error)) for path in files}


def _keep(
    path: Path, image: Image.Image | None, problem: str | None, recipe: ImageRecipe
) -> Outcome:
    if image is None:
        log.warning("%s was not drawn: %s", path, problem)
        path.unlink(missing_ok=True)
        return Outcome(None, problem or "not drawn")
    write_image(path, image, recipe)
    return Outcome(path)


def first_line(error: Exception) -> str:
    """The first line of an error's text."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def image_recipes(
    base: BaseModel,
    lora: Path,
    digest: str,
    files: dict[Path, ImageRequest],
    config: SamplingConfig,
    names: dict[str, str],
) -> dict[Path, ImageRecipe]:
    """The recipe of each image; images that are drawn together share `batch`."""
    requests = [asdict(request) for request in files.values()]
    together = json.dumps([requests, config.batch_size, base.fingerprint, base.vae_fingerprint])
    batch = hashlib.sha256(together.encode()).hexdigest()[:12]
    return {
        path: ImageRecipe(
            prompt=request.prompt,
            negative=request.negative,
            steps=config.steps,
            sampler=config.sampler,
            guidance=config.guidance,
            seed=request.seed,
            width=config.width,
            height=config.height,
            clip_skip=config.clip_skip,
            model=base.name,
            model_hash=base.fingerprint[:10],
            lora=lora.stem,
            lora_hash=digest,
            lora_weight=config.lora_weight,
            names=names,
            batch=batch,
        )
        for path, request in files.items()
    }


def safe_name(name: str) -> str:
    """A checkpoint's name as a file name."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("._") or "checkpoint"
