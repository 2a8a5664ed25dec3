"""Images a second: ours, against bare PyTorch, and against loading a pipeline for each LoRA.

Sets of images are drawn in turn by all three, so that what else the machine does hits them alike. A
set is what a grid set asks of one LoRA file: two prompts, or eleven of the final one.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.settings import sampling_settings, train_settings
from benchmarks.table import BenchmarkRow, paired
from lora_lab.checkpoint.base_model import BaseModel, encode_prompt_hidden, load_base
from lora_lab.checkpoint.embedded import locate
from lora_lab.config import SamplingConfig
from lora_lab.lora_file import write_lora
from lora_lab.network import inject_lora
from lora_lab.sampling.generate import ImageRequest, draw_settings
from lora_lab.sampling.pipeline import ImageTask, LoRAPipeline

SAVES = 10
"""LoRA files of a run, the last of which also draws the random prompts."""
SETS = 50
"""Sets that a base draws in a sweep of five runs; it is loaded once for all of them."""
PROMPTS = [f"portrait of a zqx person, number {number}" for number in range(11)]


@torch.inference_mode()
def bare_images(base: BaseModel, settings: SamplingConfig, prompts: list[str]) -> Tensor:
    """A batch of images without samplers, prompt weights, LoRAs or PNGs, (B, 3, H, W)."""
    count = len(prompts)
    text = base.tokenizer(
        [""] * count + prompts, padding="max_length", return_tensors="pt"
    ).input_ids
    hidden = encode_prompt_hidden(base.text_encoder, text, settings.clip_skip)  # (2B, 77, C)
    height, width = (side // base.latent_factor for side in (settings.height, settings.width))
    channels = base.unet.config["in_channels"]
    latents = torch.randn((count, channels, height, width))
    timesteps = torch.linspace(999, 0, settings.steps).long()
    alphas = base.noise_scheduler.alphas_cumprod
    sigmas = ((1 - alphas) / alphas).sqrt()
    for timestep, below in zip(timesteps, [*timesteps[1:], timesteps[-1]], strict=True):
        scaled = latents / (sigmas[timestep] ** 2 + 1).sqrt()
        both = base.unet(torch.cat([scaled, scaled]), timestep, hidden, return_dict=False)[0]
        without, with_prompt = both.chunk(2)
        noise_pred = without + settings.guidance * (with_prompt - without)
        latents = latents + (sigmas[below] - sigmas[timestep]) * noise_pred
    return base.vae.decode(latents / base.vae.config["scaling_factor"], return_dict=False)[0]


def pipeline_images(
    folder: Path, lora: Path, settings: SamplingConfig, prompts: list[str], output: Path
) -> None:
    """Load a diffusers pipeline and a LoRA, draw one set, and save it."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    pipe: Any = StableDiffusionPipeline.from_pretrained(
        folder,
        local_files_only=True,
        safety_checker=None,
        low_cpu_mem_usage=False,
        torch_dtype=torch.float32,
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config, use_karras_sigmas=True, timestep_spacing="linspace"
    )
    pipe.load_lora_weights(str(lora.parent), weight_name=lora.name)
    images = pipe(
        prompts,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        height=settings.height,
        width=settings.width,
    ).images
    for index, image in enumerate(images):
        image.save(output / f"{lora.stem}-{index}.png")


def measure(overrides: list[str], rounds: int) -> list[BenchmarkRow]:
    """Draws sets by ours, bare and pipeline in turn; a row for each comparison.

    Args:
        overrides: As for train.py; sampling.* are used, and the base of model.checkpoint.
        rounds: How many sets of two and how many of eleven images, after one to warm up.
    """
    config = train_settings(overrides)
    settings = sampling_settings(overrides)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        base = load_base(config.model.checkpoint)
        loading = (time.perf_counter() - began) / SETS
        loras = _loras(base, config, folder, 2 * rounds + 1)
        pipeline = LoRAPipeline(base, settings)
        seconds: dict[int, list[tuple[float, float, float]]] = {2: [], len(PROMPTS): []}
        for number, lora in enumerate(loras):
            prompts = PROMPTS if number % 2 else PROMPTS[:2]
            taken = list(_turns(pipeline, settings, config.model.checkpoint, lora, prompts, folder))
            if number:
                seconds[len(prompts)].append((taken[0] + loading, taken[1], taken[2]))
    rows = []
    small, large = seconds[2], seconds[len(PROMPTS)]
    pairs = [
        [(SAVES - 1) * a + b for a, b in zip(few, many, strict=True)]
        for few, many in zip(small, large, strict=True)
    ]
    images = (SAVES - 1) * 2 + len(PROMPTS)
    ours, bare, pipelines = ([images / run[i] for run in pairs] for i in range(3))
    what = f"grids of a run, {images} images of {settings.steps} steps"
    rows.append(paired(what, ours, bare, "images/s"))
    rows.append(paired("... against a pipeline for each LoRA", ours, pipelines, "images/s"))
    return rows


def _turns(
    pipeline: LoRAPipeline,
    settings: SamplingConfig,
    checkpoint: str,
    lora: Path,
    prompts: list[str],
    folder: Path,
) -> Iterator[float]:
    """Seconds of one set: ours with PNGs, bare, and by a pipeline."""
    tasks = [
        ImageTask(
            folder / f"ours-{lora.stem}-{index}.png",
            ImageRequest(prompt, settings.negative, index),
            draw_settings(settings),
            lora,
            1.0,
            plain_name=True,
        )
        for index, prompt in enumerate(prompts)
    ]
    start = time.perf_counter()
    outcomes = pipeline.draw(tasks)
    yield time.perf_counter() - start
    assert all(outcome.drawn for outcome in outcomes)
    start = time.perf_counter()
    for first in range(0, len(prompts), settings.batch_size):
        bare_images(pipeline.base, settings, prompts[first : first + settings.batch_size])
    yield time.perf_counter() - start
    start = time.perf_counter()
    pipeline_images(locate(checkpoint), lora, settings, prompts, folder)
    yield time.perf_counter() - start


def _loras(base: BaseModel, config: Any, folder: Path, count: int) -> list[Path]:
    """LoRA files of the config's network."""
    paths = []
    for seed in range(count):
        network = inject_lora(base, config.network, seed)
        paths.append(folder / f"lora-{seed}.safetensors")
        write_lora(paths[-1], network.tensors(), {"ss_seed": str(seed)})
        network.remove()
    return paths
