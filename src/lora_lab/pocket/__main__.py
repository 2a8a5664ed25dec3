"""Pretrain pocket, measure it, and write its weights and its person: ``make pocket``.

Every stage is kept in the work folder and resumed there: the same command goes on where it stopped.
"""

import argparse
import logging
from pathlib import Path

import torch

from lora_lab.files import make_folder, write_json
from lora_lab.pocket.draw import STYLES
from lora_lab.pocket.export import CLIP_NAME, NAMES, export_checkpoint, export_clip
from lora_lab.pocket.measure import measure
from lora_lab.pocket.person import write_person
from lora_lab.pocket.pretrain import SEED, Stages, deterministic
from lora_lab.sampling.devices import choose_device

HERE = Path(__file__).parent


def pretrain(stages: Stages, models: Path, person: Path) -> None:
    """Run every stage that is not finished, then write checkpoints, CLIP and person."""
    stages.draw()
    parts = {style: stages.unet(style) for style in STYLES}
    for style, unet in parts.items():
        export_checkpoint(
            models / NAMES[style], unet, stages.vae, stages.text_encoder, stages.tokenizer
        )
    export_clip(models / CLIP_NAME, stages.clip, stages.tokenizer)
    write_person(person, SEED)


def main() -> None:
    """Pretrain and measure, or only measure what is written."""
    parser = argparse.ArgumentParser(prog="python -m lora_lab.pocket", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("build/pocket"), help="data, checkpoints, images"
    )
    parser.add_argument("--models", type=Path, default=HERE / "models", help="weights go here")
    parser.add_argument("--person", type=Path, default=HERE / "person", help="its images go here")
    parser.add_argument("--threads", type=int, default=2, help="of the processor, at least 1")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto: cuda if there is one")
    parser.add_argument("--only-measure", action="store_true", help="the weights that are there")
    arguments = parser.parse_args()
    make_folder(arguments.work)
    lines: list[logging.Handler] = [
        logging.StreamHandler(),
        logging.FileHandler(arguments.work / "pocket.log"),
    ]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=lines)
    torch.set_num_threads(arguments.threads)
    deterministic()
    stages = Stages(arguments.work, choose_device(arguments.device), arguments.threads)
    if arguments.only_measure:
        stages.draw()
    else:
        pretrain(stages, arguments.models, arguments.person)
    figures = measure(stages, arguments.models, arguments.person)
    write_json(arguments.work / "quality.json", figures)
    if not arguments.only_measure:
        write_json(arguments.models / "quality.json", figures)
    for name, value in figures.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
