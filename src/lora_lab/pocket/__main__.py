"""Pretrain pocket, measure it, and write its weights and its person: ``make pocket``."""

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lora_lab.checkpoint.base_model import load_base
from lora_lab.files import write_json
from lora_lab.pocket import evaluate
from lora_lab.pocket.clip import retrieval_accuracy
from lora_lab.pocket.draw import STYLES
from lora_lab.pocket.export import export_checkpoint, export_clip
from lora_lab.pocket.person import write_person
from lora_lab.pocket.pretrain import SEED, Stages
from lora_lab.pocket.unet import CLIP_SKIP
from lora_lab.pocket.vae import psnr
from lora_lab.sampling.generate import DrawSettings, ImageRequest, draw_images

NAMES = {"plain": "pocket", "graphic": "pocket-graphic", "photo": "pocket-photo"}
HERE = Path(__file__).parent
DRAWING = DrawSettings(
    sampler="DPM++ 2M Karras",
    steps=25,
    guidance=4.0,
    width=64,
    height=64,
    clip_skip=CLIP_SKIP,
    batch_size=25,
)
PROMPTS = 100


def measure(stages: Stages, models: Path) -> dict[str, object]:
    """Quality of the written models on held-out seeds; images go to the work folder."""
    clip, tokenizer = stages.clip, stages.tokenizer
    figures: dict[str, object] = {
        "vae_psnr_db": {s: psnr(stages.vae, stages.held_out(s)[0]) for s in STYLES},
        "clip_retrieval_of_64": {
            s: retrieval_accuracy(clip, tokenizer, *stages.held_out(s)) for s in STYLES
        },
    }
    reader = evaluate.train_reader(*stages.training_data(*STYLES), stages.work / "reader.pt")
    figures["reader_accuracy"] = {s: evaluate.accuracy(reader, *stages.held_out(s)) for s in STYLES}
    prompts, wanted = evaluate.held_out_prompts(PROMPTS, SEED)
    requests = [ImageRequest(prompt, "", i) for i, prompt in enumerate(prompts)]
    followed = {}
    for style, name in NAMES.items():
        drawn = draw_images(load_base(str(models / name)), requests, DRAWING)
        images = np.stack([np.asarray(d.image) for d in drawn])
        followed[style] = evaluate.accuracy(reader, images, wanted)
        sheet = images.reshape(10, 10, 64, 64, 3).transpose(0, 2, 1, 3, 4).reshape(640, 640, 3)
        Image.fromarray(sheet).save(stages.work / f"samples-{name}.png")
    figures["prompt_following"] = followed
    return figures


def main() -> None:
    """Run every stage that is not finished, then write and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("build/pocket"))
    parser.add_argument("--models", type=Path, default=HERE / "models")
    parser.add_argument("--person", type=Path, default=HERE / "person")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    stages = Stages(arguments.work)
    stages.draw()
    for style, name in NAMES.items():
        export_checkpoint(
            arguments.models / name,
            stages.unet(style),
            stages.vae,
            stages.text_encoder,
            stages.tokenizer,
        )
    export_clip(arguments.models / "pocket-clip", stages.clip, stages.tokenizer)
    write_person(arguments.person, SEED)
    figures = measure(stages, arguments.models)
    write_json(arguments.models / "quality.json", figures)
    for name, value in figures.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
