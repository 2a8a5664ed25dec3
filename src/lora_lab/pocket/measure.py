"""Every figure of docs/pocket.md, measured on the written checkpoints; images to look at beside."""

import logging
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPModel

from lora_lab.checkpoint.base_model import BaseModel, load_base
from lora_lab.pocket import evaluate, reader, subject
from lora_lab.pocket.attributes import Attributes
from lora_lab.pocket.clip import retrieval_accuracy
from lora_lab.pocket.draw import STYLES
from lora_lab.pocket.export import CLIP_NAME, NAMES
from lora_lab.pocket.pretrain import SEED, Stages
from lora_lab.pocket.text_encoder import told_from_captions
from lora_lab.pocket.vae import fidelity

log = logging.getLogger(__name__)

PROMPTS = 100
"""Prompts a checkpoint."""
SUBJECT_PROMPTS = 50

HeldOut = dict[str, tuple[np.ndarray, list[Attributes]]]
"""Style -> portraits that nothing was trained on."""
Figures = dict[str, object]


def measure(stages: Stages, models: Path, person: Path) -> Figures:
    """Measure the checkpoints in ``models``, on the device of ``stages``.

    Args:
        stages: has the held-out portraits and the classifier; the images that were generated go
            to its work folder.
        models: the checkpoints and the CLIP.
        person: training and held-out images of the person.
    """
    held_out = {style: stages.held_out(style) for style in STYLES}
    clip = CLIPModel.from_pretrained(models / CLIP_NAME, dtype=torch.float32).eval()
    clip.to(stages.device)
    read = partial(reader.read, stages.reader)
    features = partial(evaluate.image_features, clip)
    base = _load(models, "plain", stages.device)
    return {
        "measured_on": {"device": device_name(stages.device), "torch": torch.__version__},
        **_fidelity(base, held_out),
        "clip_retrieval_of_64": {
            style: retrieval_accuracy(clip, base.tokenizer, *held)
            for style, held in held_out.items()
        },
        "told_from_captions": told_from_captions(
            stages.caption_reading, base.tokenizer, held_out["plain"][1]
        ),
        "reader_accuracy": {
            name: reader.agreement(read(images), drawn)
            for name, (images, drawn) in {**held_out, "mixed": stages.held_out("mixed")}.items()
        },
        **_prompts(stages, models, held_out, read, features),
        "subject": _subject(stages, models, person, read),
    }


def device_name(device: torch.device) -> str:
    """What computes: the processor, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def _load(models: Path, style: str, device: torch.device) -> BaseModel:
    base = load_base(str(models / NAMES[style]))
    base.vae.to(device)
    base.unet.to(device)
    return base


def _fidelity(base: BaseModel, held_out: HeldOut) -> Figures:
    faithful = {style: fidelity(base.vae, images) for style, (images, _) in held_out.items()}
    return {
        "vae_psnr_db": {style: psnr for style, (psnr, _) in faithful.items()},
        "vae_ssim": {style: ssim for style, (_, ssim) in faithful.items()},
    }


def _prompts(
    stages: Stages,
    models: Path,
    held_out: HeldOut,
    read: subject.Read,
    features: Callable[[np.ndarray], torch.Tensor],
) -> Figures:
    """What the images of prompts show, and how far they are from drawn ones."""
    prompts, wanted = evaluate.held_out_prompts(PROMPTS, SEED)
    followed, distance = {}, {}
    for style in STYLES:
        log.info("%s: drawing %d prompts", NAMES[style], PROMPTS)
        images = evaluate.generate(_load(models, style, stages.device), prompts)
        evaluate.sheet(images).save(stages.work / f"samples-{NAMES[style]}.png")
        followed[style] = reader.agreement(read(images), wanted)
        drawn = features(held_out[style][0])
        distance[style] = {
            "generated": evaluate.kernel_distance(drawn, features(images)),
            # Nothing is nearer than this: as many drawn portraits, against the others.
            "drawn": evaluate.kernel_distance(drawn[PROMPTS:], drawn[:PROMPTS]),
        }
    return {"prompt_following": followed, "kid": distance}


def _subject(stages: Stages, models: Path, person: Path, read: subject.Read) -> Figures:
    log.info("training the default LoRA on the person")
    plain = models / NAMES["plain"]
    lora = subject.train_subject(plain, person, stages.work / "subject")
    figures, images = subject.measure_subject(
        _load(models, "plain", stages.device), lora, read, SUBJECT_PROMPTS, SEED
    )
    evaluate.sheet(images).save(stages.work / "samples-subject.png")
    return dict(figures)
