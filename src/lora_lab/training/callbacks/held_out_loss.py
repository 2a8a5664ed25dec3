"""Loss at fixed timesteps and noise, on held-out images and on as many training images.

The gap between the two is overfitting. Noise depends on image and timestep alone, not on the run's
seed, so any two runs on the same data measure the same thing. Nothing of training is touched: no
random number of it is drawn, no gradient is kept.

Shapes: N images, C latent channels, h and w latent sides, L tokens, D hidden size.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from lora_lab.clock import Clock
from lora_lab.config import DataConfig
from lora_lab.data.batch import Batch
from lora_lab.data.prepare import Item
from lora_lab.data.tokens import caption_tokens
from lora_lab.files import write_error, write_text
from lora_lab.objective import add_noise, squared_error, target
from lora_lab.optimizers import averaged_weights
from lora_lab.randomness import derive_seed, generator
from lora_lab.training.callbacks.step_callback import StepCallback
from lora_lab.training.module import LoRAModule

TIMESTEPS = (100, 300, 500, 700, 900)
NOISE_SEED = 0
LATENT_PIXELS = 4096
"""Latent pixels in a forward pass: 16 images of pocket, one of SD 1.5 at 512 px."""
COLUMNS = ("step", "set", "image", "timestep", "loss")


@dataclass(frozen=True)
class Probe:
    """Images of one size that are measured in one forward pass."""

    part: str
    """``held_out`` or ``training``."""
    keys: list[str]
    latents: Tensor
    """(N, C, h, w)"""
    input_ids: Tensor
    """(N, L), or (N, T, L) where captions have chunks or weights."""
    token_weights: Tensor | None
    """(N, T, L)"""
    noise: dict[int, Tensor]
    """Timestep -> (N, C, h, w)."""


class HeldOutLoss(StepCallback):
    """Measures at every save; records the means and writes each image's loss to a file.

    Args:
        path: held_out.csv: one row for each step, set, image and timestep.
        held_out: Images that are not trained on.
        training: The training images; as many of them are measured.
        tokenizer: Of the base model.
        config: How captions become tokens.
        steps: When to measure.
        clock: Counts the seconds.
    """

    def __init__(
        self,
        path: Path,
        held_out: list[Item],
        training: list[Item],
        tokenizer: CLIPTokenizer,
        config: DataConfig,
        steps: set[int],
        clock: Clock,
    ) -> None:
        self.path = path
        self.steps = steps
        self.clock = clock
        chosen = sorted(training, key=lambda item: derive_seed(NOISE_SEED, item.example.key))
        self.probes = make_probes("held_out", held_out, tokenizer, config)
        self.probes += make_probes("training", chosen[: len(held_out)], tokenizer, config)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the file, or keep the rows up to the step that the run is resumed from."""
        lines = [",".join(COLUMNS)]
        if trainer.global_step > 0 and self.path.is_file():
            whole = self.path.read_text(encoding="utf-8").rpartition("\n")[0]
            for line in whole.splitlines()[1:]:
                step = line.split(",", 1)[0]
                if step.isdigit() and int(step) <= trainer.global_step:
                    lines.append(line)
        write_text(self.path, "\n".join(lines) + "\n")

    def on_step_end(self, trainer: pl.Trainer, module: LoRAModule, batch: Batch) -> None:
        """Measure when the step is one of those that save."""
        if batch["step"] not in self.steps:
            return
        with self.clock.phase("held_out"):
            weights = averaged_weights(module.optimizer)
            with torch.no_grad(), weights, trainer.precision_plugin.forward_context():
                rows = [row for probe in self.probes for row in measure(module, probe)]
            module.record.update(means(rows))
            self._append(batch["step"], rows)

    def _append(self, step: int, rows: list[tuple[str, str, int, float]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([(step, *row) for row in rows])
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(text.getvalue())
        except OSError as error:
            raise write_error(self.path, error) from error


def make_probes(
    part: str, items: list[Item], tokenizer: CLIPTokenizer, config: DataConfig
) -> list[Probe]:
    """Group images by size, at most ``LATENT_PIXELS`` a group."""
    by_bucket: dict[tuple[int, int], list[Item]] = {}
    for item in items:
        by_bucket.setdefault(item.bucket, []).append(item)
    probes = []
    for bucket in sorted(by_bucket):
        group = by_bucket[bucket]
        size = max(1, LATENT_PIXELS // group[0].latents[0].numel())
        probes += [
            _probe(part, group[start : start + size], tokenizer, config)
            for start in range(0, len(group), size)
        ]
    return probes


def _probe(part: str, items: list[Item], tokenizer: CLIPTokenizer, config: DataConfig) -> Probe:
    latents = torch.stack([item.latents for item in items])
    keys = [item.example.key for item in items]
    noise = {
        timestep: torch.stack(
            [
                torch.randn(
                    latents.shape[1:], generator=generator(NOISE_SEED, "held_out", key, timestep)
                )
                for key in keys
            ]
        )
        for timestep in TIMESTEPS
    }
    tokens = [caption_tokens(tokenizer, item.example.caption.text, config) for item in items]
    input_ids = torch.stack([one.input_ids for one in tokens])
    weights = [one.weights for one in tokens if one.weights is not None]
    return Probe(part, keys, latents, input_ids, torch.stack(weights) if weights else None, noise)


def measure(module: LoRAModule, probe: Probe) -> list[tuple[str, str, int, float]]:
    """Unweighted loss of each image at each timestep: (set, image, timestep, loss)."""
    device, alphas = module.device, module.alphas_cumprod
    latents = probe.latents.to(device)
    weights = None if probe.token_weights is None else probe.token_weights.to(device)
    hidden = module.captions(module.text_encoder, probe.input_ids.to(device), weights)  # (N, L, D)
    rows = []
    for timestep, noise in probe.noise.items():
        noise = noise.to(device)
        steps = torch.full((len(latents),), timestep, device=device)
        noisy = add_noise(latents, noise, steps, alphas)
        wanted = target(module.prediction_type, latents, noise, steps, alphas)
        prediction = module.denoise(noisy, steps, hidden)
        losses = squared_error(prediction, wanted).tolist()
        rows += [
            (probe.part, key, timestep, loss) for key, loss in zip(probe.keys, losses, strict=True)
        ]
    return rows


def means(rows: list[tuple[str, str, int, float]]) -> dict[str, float]:
    """The figures of the held-out images: at each timestep, and over all of them."""
    by_timestep = {
        timestep: [loss for part, _, at, loss in rows if part == "held_out" and at == timestep]
        for timestep in TIMESTEPS
    }
    figures = {f"val/loss_t{t}": sum(losses) / len(losses) for t, losses in by_timestep.items()}
    return {"val/loss": sum(figures.values()) / len(figures), **figures}
