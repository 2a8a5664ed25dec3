"""Stable Diffusion 1.5 at full size, with random weights: trained, saved, and read by diffusers."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from torch import nn

from ldm_writer import ldm_tensors, write_ldm
from lora_lab.checkpoint.base_model import BaseModel, load_base, read_config
from lora_lab.checkpoint.families.sd15 import SD15
from lora_lab.lora_file import read_lora
from lora_lab.lora_file.merge import LoRAMerger
from lora_lab.sampling.generate import DrawSettings, ImageRequest, draw_images, encode_request
from tiny_model import write_index

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
GIB = 2**30
SETTINGS = DrawSettings("DPM++ 2M Karras", 3, 4.0, 128, 128, clip_skip=2, batch_size=1)
REQUEST = ImageRequest("photo of zqx person", "blurry", seed=5)


def full_size_parts() -> dict[str, nn.Module]:
    """Fan-in scaled random numbers, norms of 1 and biases of 0, so that activations stay finite."""
    draws, parts = torch.Generator().manual_seed(0), {}
    for part in SD15.parts:
        with torch.device("meta"):
            module = SD15.build[part](read_config(SD15.configs / part / "config.json"))
        weights = {}
        for key, tensor in module.state_dict().items():
            if tensor.ndim == 1:
                weights[key] = torch.full(tensor.shape, float(key.endswith("weight"))).half()
            else:
                random = torch.randn(tensor.shape, generator=draws)
                weights[key] = (random / tensor[0].numel() ** 0.5).half()
        module.load_state_dict(weights, assign=True)
        parts[part] = module
    return parts


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A single file of 2.1 GB in fp16."""
    folder = tmp_path_factory.mktemp("full-size")
    write_ldm(folder / "random.safetensors", ldm_tensors(full_size_parts()), torch.float16)
    return folder / "random.safetensors"


@pytest.fixture(scope="module")
def run_dir(checkpoint, tmp_path_factory) -> Path:
    """3 steps at 512 px with the guide's settings but for precision, rank and optimizer."""
    data = tmp_path_factory.mktemp("data") / "3_zqx person"
    data.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)
    Image.fromarray(noise).save(data / "01.png")
    (data / "01.txt").write_text("photo of zqx person")
    run = tmp_path_factory.mktemp("run")
    command = [sys.executable, "train.py", "model=sd15", f"model.checkpoint={checkpoint}"]
    command += ["data=folder", f"data.dir={data.parent}", "data.resolution=512"]
    command += ["data.batch_size=1", "epochs=1", "save_every=1.0", "network.dim=16"]
    command += ["network.alpha=16", "optimizer=adamw", "optimizer.lr=0.01", "schedule=constant"]
    command += ["trainer.precision=32-true", f"hydra.run.dir={run}", "callbacks.progress=false"]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    print(f"train.py: {time.perf_counter() - began:.0f} s in all")
    return run


def test_three_steps_at_512_px_fit_16_gb(run_dir):
    facts = json.loads((run_dir / "run.json").read_text())
    peak = facts["peak_memory_bytes"]["process"]
    print(f"peak {peak / GIB:.1f} GiB; seconds {facts['seconds']}")
    assert facts["status"] == "complete" and facts["steps"] == 3
    assert peak < 16e9


def test_the_file_has_all_layers_and_the_checkpoints_hash(run_dir, checkpoint):
    with safe_open(run_dir / "lora" / "lora.safetensors", "pt") as file:
        names, metadata = set(file.keys()), file.metadata()
    assert len(names) == 264 * 3
    assert metadata["ss_sd_model_name"] == checkpoint.name
    assert len(metadata["ss_new_sd_model_hash"]) == 64


def test_diffusers_draws_the_same_image_from_the_file(run_dir, checkpoint, tmp_path):
    """At most 2 of 255 a channel, where the LoRA itself moves pixels by far more."""
    began = time.perf_counter()
    base = load_base(str(checkpoint))
    print(f"load_base: {time.perf_counter() - began:.1f} s")
    plain = pixels(base)
    LoRAMerger(base).apply([(read_lora(run_dir / "lora" / "lora.safetensors")[0], 1.0)])
    ours = pixels(base)
    base.unet = base.vae = None  # their memory is needed below
    theirs = diffusers_pixels(base, checkpoint, run_dir / "lora", tmp_path / "sd15")
    print(f"ours - theirs {np.abs(ours - theirs).max()}, LoRA {np.abs(ours - plain).max()}")
    assert np.abs(ours - plain).max() > 20
    assert np.abs(ours - theirs).max() <= 2


def pixels(base: BaseModel) -> np.ndarray:
    (drawn,) = draw_images(base, [REQUEST], SETTINGS)
    assert drawn.image is not None, drawn.problem
    return np.asarray(drawn.image).astype(int)


def diffusers_pixels(base: BaseModel, checkpoint: Path, loras: Path, config: Path) -> np.ndarray:
    """Diffusers' reader of single files, its reader of kohya's files, and its own loop."""
    shutil.copytree(SD15.configs, config)
    write_index(config)
    pipe = StableDiffusionPipeline.from_single_file(
        str(checkpoint), config=str(config), local_files_only=True, torch_dtype=torch.float32
    )
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config, use_karras_sigmas=True, timestep_spacing="linspace"
    )
    pipe.load_lora_weights(loras, weight_name="lora.safetensors")
    base.text_encoder = pipe.text_encoder
    with torch.no_grad():
        asked = encode_request(base, REQUEST, SETTINGS)
    pipe.scheduler.set_timesteps(SETTINGS.steps)
    sigma = float(pipe.scheduler.sigmas[0])
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(REQUEST.seed))
    image = pipe(
        prompt_embeds=asked.prompt.parts[0].hidden,
        negative_prompt_embeds=asked.negative.parts[0].hidden,
        latents=noise * sigma / (1 + sigma**2) ** 0.5,
        num_inference_steps=SETTINGS.steps,
        guidance_scale=SETTINGS.guidance,
        height=SETTINGS.height,
        width=SETTINGS.width,
    ).images[0]
    return np.asarray(image).astype(int)
