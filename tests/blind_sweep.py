"""A sweep whose metric images can be chosen between: two values under three seeds, six prompts."""

from pathlib import Path

from PIL import Image

from lora_lab.images.png_info import write_image
from study_sweep_builder import FakeRun, SweepBuilder, recipe

PROMPTS = 6
SEEDS = (1234, 1235, 1236)


def blind_sweep(folder: Path) -> Path:
    """Writes the sweep; every image has a colour of its own."""
    sweep = SweepBuilder(folder, epochs=3)
    for place, seed in enumerate(SEEDS):
        base = FakeRun("16", "base", f"base/seed={seed}", seed, effect=0.0002 * place)
        sweep.runs.append(base)
        for value in ("2", "8"):
            sweep.value(value, name=f"network.dim={value}/seed={seed}", seed=seed)
    sweep.write()
    for row, run in enumerate(sweep.runs):
        images = folder / run.name.replace("/", "_") / "images" / "metrics"
        for prompt in range(PROMPTS):
            asked = recipe(f"prompt {prompt}")
            colour = (40 + 10 * row, 30 * prompt, 90)
            write_image(
                images / f"{prompt:03d}-{asked.seed}.png", Image.new("RGB", (24, 24), colour), asked
            )
    return folder
