"""What users write without LoRA Lab: a loop that loads a pipeline and a LoRA for each image set.

    python -m benchmarks.pipeline_loop <file.json>

The JSON file holds a `LoopPlan`. Nothing of LoRA Lab is imported, so the process starts as fast as
a script of a user's own.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ImageSet:
    """The images that are drawn with one LoRA on one checkpoint."""

    checkpoint: str
    """A folder in diffusers' layout."""
    lora: str
    """A LoRA file."""
    prompts: list[str]
    seeds: list[int]
    output: str
    """Folder of its images."""


@dataclass(frozen=True)
class LoopPlan:
    """All that the loop draws, and how."""

    sets: list[ImageSet]
    steps: int
    guidance: float
    width: int
    height: int
    threads: int


def draw_sets(plan: LoopPlan) -> None:
    """Draw all sets, each with a pipeline of its own."""
    import torch
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()
    torch.set_num_threads(plan.threads)
    for images in plan.sets:
        pipe: Any = StableDiffusionPipeline.from_pretrained(
            images.checkpoint,
            local_files_only=True,
            safety_checker=None,
            low_cpu_mem_usage=False,
            torch_dtype=torch.float32,
        )
        pipe.set_progress_bar_config(disable=True)
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(
            pipe.scheduler.config, use_karras_sigmas=True, timestep_spacing="linspace"
        )
        pipe.load_lora_weights(str(Path(images.lora).parent), weight_name=Path(images.lora).name)
        drawn = pipe(
            images.prompts,
            num_inference_steps=plan.steps,
            guidance_scale=plan.guidance,
            height=plan.height,
            width=plan.width,
            generator=[torch.Generator().manual_seed(seed) for seed in images.seeds],
        ).images
        output = Path(images.output)
        output.mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(drawn):
            image.save(output / f"{Path(images.lora).stem}-{number}.png")


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    found["sets"] = [ImageSet(**one) for one in found["sets"]]
    draw_sets(LoopPlan(**found))
