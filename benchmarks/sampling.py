"""Images a second of a run's grids: ours, against bare PyTorch, and against a loop of pipelines.

A run's grids ask for two images of each saved LoRA and nine more of the final one. Whole processes
are timed, imports and loading included, in turn: `sample.py run=...`, and the loop that users write
without LoRA Lab (pipeline_loop.py). In one process, what the pipeline takes for the images of a run
is held against a bare loop that draws as many images without LoRAs, in batches as large as ours.
With several threads, batches side by side are held against all threads on one after the other.
"""

import json
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.pipeline_loop import ImageSet, LoopPlan
from benchmarks.settings import train_settings
from benchmarks.start_up import run_seconds
from benchmarks.table import BenchmarkRow, paired
from lora_lab.checkpoint.base_model import BaseModel, encode_prompt_hidden, load_base
from lora_lab.checkpoint.embedded import locate
from lora_lab.config import SamplingConfig, TrainConfig
from lora_lab.lora_file import write_lora
from lora_lab.network import inject_lora
from lora_lab.run_folder.saved_loras import find_rows
from lora_lab.sampling import batch_threads
from lora_lab.sampling.batch_threads import thread_count
from lora_lab.sampling.generate import ImageRequest, batches, draw_settings
from lora_lab.sampling.pipeline import ImageTask, LoRAPipeline

SAVES = 10
"""LoRA files of a run."""
RANDOM = 9
"""Images that the final one draws beside the two that each draws."""
SUBJECT = "zqx person"


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


def measure(overrides: list[str], rounds: int) -> list[BenchmarkRow]:
    """Draws the images of a run by each in turn; a row for each comparison.

    Args:
        overrides: As for train.py; sampling.* are used, and the base of model.checkpoint.
        rounds: How often.
    """
    config = train_settings(overrides)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return [
            _within_a_process(config, folder, rounds),
            *_side_by_side(config, folder, rounds),
            _whole_processes(config, overrides, folder, rounds),
        ]


def _within_a_process(config: TrainConfig, folder: Path, rounds: int) -> BenchmarkRow:
    """The images of a run on a base that is loaded, against a bare loop."""
    settings = config.sampling
    base, plain = (load_base(config.model.checkpoint) for _ in range(2))
    loras = _loras(base, config, folder)
    pipeline = LoRAPipeline(base, settings)
    ours, bare = [], []
    for number in range(rounds + 1):
        tasks = _tasks(settings, loras, folder / f"{number}")
        start = time.perf_counter()
        outcomes = pipeline.draw(tasks)
        middle = time.perf_counter()
        prompts = [task.request.prompt for task in tasks]
        for batch in batches([0] * len(prompts), settings.batch_size):
            bare_images(plain, settings, [prompts[index] for index in batch])
        end = time.perf_counter()
        assert all(outcome.drawn for outcome in outcomes)
        if number:  # the first warms up
            ours.append(len(tasks) / (middle - start))
            bare.append(len(tasks) / (end - middle))
    what = f"a run's {len(tasks)} images of {settings.steps} steps"
    return paired(what, ours, bare, "images/s")


def _side_by_side(config: TrainConfig, folder: Path, rounds: int) -> list[BenchmarkRow]:
    """Small images with several CPU threads: a batch on each, against all threads on each batch."""
    settings = config.sampling
    base = load_base(config.model.checkpoint)
    pipeline = LoRAPipeline(base, settings)
    if thread_count(base.unet.device, settings.width, settings.height) == 1:
        return []
    loras = _loras(base, config, folder)
    most = batch_threads.MOST_PIXELS
    speeds: dict[int, list[float]] = {most: [], 0: []}
    for number in range(rounds + 1):
        for limit, found in speeds.items():
            tasks = _tasks(settings, loras, folder / f"{number}-{limit}")
            with patch.object(batch_threads, "MOST_PIXELS", limit):
                start = time.perf_counter()
                outcomes = pipeline.draw(tasks)
                seconds = time.perf_counter() - start
            assert all(outcome.drawn for outcome in outcomes)
            if number:  # the first warms up
                found.append(len(tasks) / seconds)
    return [paired("... against all threads on each batch", speeds[most], speeds[0], "images/s")]


def _whole_processes(
    config: TrainConfig, overrides: list[str], folder: Path, rounds: int
) -> BenchmarkRow:
    """`sample.py run=...` against the loop of pipelines, both from their start to their end."""
    run, threads = folder / "run", torch.get_num_threads()
    train = ["train.py", *overrides, f"hydra.run.dir={run}", f"save_every={1 / SAVES}", "epochs=2"]
    run_seconds([*train, f"trainer.threads={threads}", "overwrite=true"])
    plan = _plan(config, run, folder / "loop", threads)
    file = folder / "plan.json"
    file.write_text(json.dumps(asdict(plan)), encoding="utf-8")
    asked = [word for word in overrides if word.startswith("sampling")]
    asked += [f"sampling.subject={SUBJECT}", f"threads={threads}"]
    images = sum(len(one.prompts) for one in plan.sets)
    ours, loop = [], []
    for _ in range(rounds):
        for drawn in ("images", "grids"):
            shutil.rmtree(run / drawn, ignore_errors=True)
        ours.append(images / run_seconds(["sample.py", f"run={run}", *asked]))
        loop.append(images / run_seconds(["-m", "benchmarks.pipeline_loop", str(file)]))
    found = len(list((run / "images").rglob("*.png")))
    assert found == images, f"sample.py drew {found} images, the loop {images}"
    return paired("... whole processes, a pipeline for each LoRA", ours, loop, "images/s")


def _plan(config: TrainConfig, run: Path, output: Path, threads: int) -> LoopPlan:
    """What the loop draws: the images that a run's three grids show."""
    settings = config.sampling
    loras = [save.path for save in find_rows(run).runs[0].saves]
    sets = []
    for checkpoint in settings.checkpoints or [config.model.checkpoint]:
        path = locate(checkpoint)
        for lora in loras:
            pairs = [
                (settings.prompts.simple, settings.seed),
                (
                    settings.prompts.complex_for.get(path.name, settings.prompts.complex),
                    settings.seed,
                ),
            ]
            if lora == loras[-1]:
                pairs += zip(settings.prompts.random, settings.random_seeds, strict=True)
            prompts = [text.replace("{subject}", SUBJECT) for text, _ in pairs]
            seeds = [seed for _, seed in pairs]
            sets.append(ImageSet(str(path), str(lora), prompts, seeds, str(output / path.name)))
    return LoopPlan(
        sets, settings.steps, settings.guidance, settings.width, settings.height, threads
    )


def _tasks(settings: SamplingConfig, loras: list[Path], folder: Path) -> list[ImageTask]:
    """Two images of each LoRA, and nine more of the last one."""
    tasks = []
    for lora in loras:
        count = 2 + RANDOM if lora == loras[-1] else 2
        tasks += [
            ImageTask(
                folder / f"{lora.stem}-{number}.png",
                ImageRequest(f"portrait of a {SUBJECT}, number {number}", "", number),
                draw_settings(settings),
                lora,
                1.0,
                plain_name=True,
            )
            for number in range(count)
        ]
    return tasks


def _loras(base: BaseModel, config: TrainConfig, folder: Path) -> list[Path]:
    """LoRA files of the config's network."""
    paths = []
    for seed in range(SAVES):
        network = inject_lora(base, config.network, seed)
        paths.append(folder / f"lora-{seed}.safetensors")
        write_lora(paths[-1], network.tensors(), {"ss_seed": str(seed)})
        network.remove()
    return paths
