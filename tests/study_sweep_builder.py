"""Makes sweep folders as a sweep leaves them, without training: the study's tests read these.

The numbers have a known truth: noise depends on the seed and the step alone, so runs of one seed
are paired, and ``effect`` shifts the losses of a run by so much at the end of its training.
"""

import csv
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw

from lora_lab.images.png_info import ImageRecipe, write_image

STRATA = (100, 300, 500, 700, 900)
GAP = 0.02
"""How far the loss of the training images lies below that of the held-out ones."""
IMAGES = {name: 0.004 * place - 0.014 for place, name in enumerate("abcdefgh")}
"""Held-out image -> how far its loss lies from the mean."""
INPUTS = ("images", "captions", "checkpoint", "vae", "latents")
COLUMNS = (
    "step,epoch,loss/step,loss/epoch,dlr/unet,dlr/text_encoder,d,val/loss,"
    + ",".join(f"val/loss_t{t}" for t in STRATA)
    + ",seconds"
).split(",")


def fingerprints(**changed: str) -> dict[str, str]:
    """Digests of the inputs; a changed word changes the digest of that input."""
    return {name: hashlib.sha256(changed.get(name, name).encode()).hexdigest() for name in INPUTS}


@dataclass
class FakeRun:
    """What one run of the sweep shall look like."""

    value: str
    role: str = "value"
    name: str = ""
    seed: int = 1234
    effect: float = 0.0
    """Added to the losses at the end of the training."""
    by_image: float = 0.0
    """Share of an image's own distance from the mean that is added to its loss."""
    rate: float = 1.0
    """Factor on d."""
    status: str = "complete"
    error: str | None = None
    lora_bytes: int | None = 1_000_000
    inputs: dict[str, str] = field(default_factory=fingerprints)
    settings: dict[str, Any] = field(default_factory=dict)
    """Further flat settings in its config.yaml."""
    held_out: bool = True
    steps_per_epoch: int = 8
    stack: int = 1
    """Runs that were trained in one pass with it, itself included."""


@dataclass
class SweepBuilder:
    """Writes a sweep folder."""

    folder: Path
    parameter: str = "network.dim"
    base_value: str = "16"
    epochs: int = 10
    seed_spread: float = 0.0002
    """How far the held-out loss of another seed lies from the base's."""
    image_noise: float = 0.0
    """Standard deviation of what an image's loss has by itself in a run."""
    sweep_settings: dict[str, Any] = field(default_factory=dict)
    """What sweep.json says beside the runs: seeds, max_seeds, margin, rounds."""
    runs: list[FakeRun] = field(default_factory=list)

    def base(self, seeds: int = 2, **changes: Any) -> "SweepBuilder":
        """Adds the base runs, one a seed."""
        for index in range(seeds):
            name = "base" if index == 0 else f"base-{index + 1}"
            run = FakeRun(self.base_value, "base", name, 1234 + index, **changes)
            run.effect += self.seed_spread * index
            self.runs.append(run)
        return self

    def value(self, value: str, effect: float = 0.0, **changes: Any) -> "SweepBuilder":
        """Adds the run of a value."""
        name = changes.pop("name", f"{self.parameter}={value}")
        self.runs.append(FakeRun(value, "value", name, effect=effect, **changes))
        return self

    def values(self, value: str, seeds: int, effect: float = 0.0, **changes: Any) -> "SweepBuilder":
        """Adds the runs of a value under the base's first seeds; they move with the base's."""
        spread = changes.pop("spread", 0.0)
        for index in range(seeds):
            own = effect + self.seed_spread * index + spread * ((-1) ** index)
            name = f"{self.parameter}={value}/seed={1234 + index}"
            self.runs.append(
                FakeRun(value, "value", name, 1234 + index, effect=own, **dict(changes))
            )
        return self

    def write(self) -> Path:
        """Writes sweep.json and every run folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        entries = [write_run(self, run) for run in self.runs]
        sweep = {
            "parameter": self.parameter,
            "values": [run.value for run in self.runs if run.role == "value"],
            "base_value": self.base_value,
            "runs": entries,
            "overrides": ["model=pocket", "data=person"],
            **self.sweep_settings,
        }
        (self.folder / "sweep.json").write_text(json.dumps(sweep), encoding="utf-8")
        return self.folder

    def grid(self, checkpoint: str = "pocket-graphic", kind: str = "simple") -> Path:
        """Draws a picture where the sampling code puts a grid."""
        path = self.folder / "report" / f"grid_{checkpoint}_{kind}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGB", (700, 70 * len(self.runs)), "#888888")
        draw = ImageDraw.Draw(picture)
        for row, run in enumerate(self.runs):
            for column in range(10):
                colour = (25 * column, (40 * row) % 255, 120)
                draw.rectangle((70 * column, 70 * row, 70 * column + 63, 70 * row + 63), colour)
            if run.role == "base":
                draw.rectangle((0, 70 * row, 699, 70 * row + 66), outline="red", width=3)
        picture.save(path)
        return path

    def images(
        self, checkpoints: Sequence[str] = ("pocket-graphic",), side: int = 24, saves: int = 4
    ) -> int:
        """Draws the images that sampling leaves in the run folders of complete runs.

        Returns:
            How many there are.
        """
        count = 0
        for row, run in enumerate(self.runs):
            if run.status != "complete":
                continue
            total = self.epochs * run.steps_per_epoch
            for checkpoint in checkpoints:
                folder = self.folder / run.name.replace("/", "_") / "images" / checkpoint
                for save in range(1, saves + 1):
                    step = total * save // saves
                    names = ["simple/{:08d}", "complex/{:08d}"]
                    names += ["random/{:08d}-1", "random/{:08d}-2"] if save == saves else []
                    for name in names:
                        path = folder / (name.format(step) + ".png")
                        colour = (40 * row % 256, 255 * save // saves, 37 * len(name) % 256)
                        write_image(path, Image.new("RGB", (side, side), colour), recipe(name))
                        count += 1
        return count


def recipe(name: str) -> ImageRecipe:
    """What an image was drawn from; its prompt has all that a page must escape."""
    return ImageRecipe(
        prompt=f"a portrait, {name.split('/')[0]} </script><b>\"'&amp; 猫",
        negative="",
        steps=20,
        sampler="Euler",
        guidance=4.0,
        seed=1234,
        width=24,
        height=24,
        clip_skip=2,
        model="pocket",
        model_hash="0123456789",
        lora="lora",
        lora_hash="0123456789ab",
        lora_weight=1.0,
        lora_digest="0123456789abcdef",
        vae_hash="0123456789",
        batch_place=0,
        batch_size=1,
        threads=1,
        torch="2.13.0",
        names={},
    )


def write_run(sweep: SweepBuilder, run: FakeRun) -> dict[str, Any]:
    """Writes a run folder and returns its entry in sweep.json; a missing run leaves no folder."""
    folder_name = run.name.replace("/", "_")
    folder = sweep.folder / folder_name
    entry = {
        "name": run.name,
        "folder": folder_name,
        "value": run.value,
        "role": run.role,
        "seed": run.seed,
        "status": run.status,
        "reused": False,
        "error": run.error,
    }
    if run.status == "missing":
        return entry
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {"seed": run.seed, "epochs": sweep.epochs, "optimizer": {"lr": 1.0}}
    for key, setting in {sweep.parameter: run.value, **run.settings}.items():
        *groups, leaf = key.split(".")
        tree = config
        for group in groups:
            tree = tree.setdefault(group, {})
        tree[leaf] = setting
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "run.json").write_text(json.dumps(_facts(sweep, run)), encoding="utf-8")
    with open(folder / "metrics.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(_rows(sweep, run))
    if run.held_out:
        _write_image_losses(sweep, run, folder / "held_out.csv")
    return entry


def _write_image_losses(sweep: SweepBuilder, run: FakeRun, path: Path) -> None:
    """Loss of each image at the end: training images lie GAP below the held-out ones."""
    last = sweep.epochs * run.steps_per_epoch
    lines = ["step,set,image,timestep,loss"]
    draws = np.random.default_rng([run.seed, *run.value.encode()])
    for part, gap in (("held_out", 0.0), ("training", GAP)):
        for image, offset in IMAGES.items():
            for timestep in STRATA:
                loss = _held_out(run, 1.0)[f"val/loss_t{timestep}"] + offset - gap
                loss += sweep.image_noise * draws.normal()
                loss += run.by_image * offset
                lines.append(f"{last},{part},{image},{timestep},{loss!r}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _facts(sweep: SweepBuilder, run: FakeRun) -> dict[str, Any]:
    steps = sweep.epochs * run.steps_per_epoch
    return {
        "status": run.status,
        "error": run.error,
        "seed": run.seed,
        "versions": {"python": "3.11.7", "torch": "2.13.0", "lora_lab": "0.1.0"},
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "device": "cpu",
        "fingerprints": run.inputs,
        "seconds": {
            "start_up": 4.0,
            "caching": 0.5,
            "training": 0.25 * steps,
            "saving": 0.4,
            "sampling": 11.0,
            "step_median": 0.25,
            "step_p95": 0.31,
        },
        "peak_memory_bytes": {"process": 1_400_000_000, "device": None},
        "lora_bytes": run.lora_bytes,
        **({"stack": {"runs": run.stack, "estimated_bytes": None}} if run.stack > 1 else {}),
        "steps": steps,
        "epochs": sweep.epochs,
        "reuse_key": "r" * 16,
        "config_key": "c" * 16,
    }


def _rows(sweep: SweepBuilder, run: FakeRun) -> list[dict[str, Any]]:
    total = sweep.epochs * run.steps_per_epoch
    done = total if run.status == "complete" else total // 2
    rows: list[dict[str, Any]] = []
    epoch_losses: list[float] = []
    for step in range(1, done + 1):
        share = step / total
        noise = np.random.default_rng([run.seed, step]).normal(0, 0.02)
        loss = 0.12 - 0.012 * share + noise + run.effect * share
        d = run.rate * min(2e-3, 1e-6 * 1.02 ** max(0, (step - 5) * 800 / total))
        rate = d * 0.5 * (1 + math.cos(math.pi * share))
        row = {
            "step": step,
            "epoch": (step - 1) // run.steps_per_epoch + 1,
            "loss/step": loss,
            "dlr/unet": rate,
            "dlr/text_encoder": 0.5 * rate,
            "d": d,
            "seconds": 0.25 * step,
        }
        epoch_losses.append(loss)
        if step % run.steps_per_epoch == 0:
            row["loss/epoch"] = float(np.mean(epoch_losses))
            epoch_losses = []
            if run.held_out:
                row |= _held_out(run, share)
        rows.append(row)
    return rows


def _held_out(run: FakeRun, share: float) -> dict[str, float]:
    by_timestep = {
        f"val/loss_t{t}": 0.30 * math.exp(-t / 350) + 0.02 - 0.01 * share + run.effect * share
        for t in STRATA
    }
    return {"val/loss": float(np.mean(list(by_timestep.values()))), **by_timestep}
