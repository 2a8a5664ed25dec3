"""Logs and settings as kohya's trainer leaves them, written with TensorBoard's own writer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter

GUI: dict[str, Any] = {
    "LoRA_type": "Standard",
    "caption_extension": ".txt",
    "clip_skip": 2,
    "epoch": 10,
    "learning_rate": 1.0,
    "lr_scheduler": "cosine",
    "lr_warmup": 0,
    "max_resolution": "512,512",
    "min_snr_gamma": 5,
    "mixed_precision": "bf16",
    "network_alpha": 1,
    "network_dim": 8,
    "optimizer": "DAdaptAdam",
    "optimizer_args": "decouple=True weight_decay=0.6 betas=0.9,0.99 growth_rate=1.02",
    "pretrained_model_name_or_path": "/models/base.safetensors",
    "save_every_n_epochs": 2,
    "seed": "1234",
    "text_encoder_lr": 0.5,
    "train_batch_size": 3,
    "train_data_dir": "/person/train",
    "unet_lr": 1.0,
}
"""Settings of the kohya_ss GUI."""


def noise(stream: int, steps: int) -> np.ndarray:
    """Losses that only the timestep and the noise of a step make, (S,)."""
    return np.random.default_rng(stream).lognormal(-2.7, 0.6, steps)


def growing_d(steps: int, factor: float, top: float, start: int = 5) -> np.ndarray:
    """d of each step: 1e-6, then growth by a factor until it saturates, (S,)."""
    grown = 1e-6 * factor ** np.clip(np.arange(steps) - start, 0, None)
    return np.minimum(grown, top)


def cosine(steps: int) -> np.ndarray:
    """The schedule after each step, (S,)."""
    return 0.5 * (1 + np.cos(np.pi * np.arange(1, steps + 1) / steps))


def write_run(
    folder: Path,
    loss: np.ndarray,
    d: np.ndarray,
    *,
    tags: str = "2023",
    per_epoch: int = 10,
    first: int = 1,
    total: int | None = None,
    started: float = 1.69e9,
) -> Path:
    """Writes one event file; steps from `first` on of a run of `total` steps."""
    steps = len(loss)
    rate = cosine(total or steps)[first - 1 : first - 1 + steps]
    names = {
        "2023": ("lr/d*lr", "lr/unet", "loss/epoch"),
        "2026": ("lr/d*lr/unet", None, "loss/epoch_average"),
    }[tags]
    with SummaryWriter(str(folder), filename_suffix=f".{first}") as writer:
        for index in range(steps):
            step, time = first + index, started + first + index
            writer.add_scalar("loss/current", loss[index], step, time)
            writer.add_scalar(names[0], d[index] * rate[index], step, time)
            if names[1] is not None:
                writer.add_scalar(names[1], rate[index], step, time)
            if step % per_epoch == 0:
                mean = loss[max(0, index + 1 - per_epoch) : index + 1].mean()
                writer.add_scalar(names[2], mean, step // per_epoch, time)
    return next(folder.glob(f"*tfevents*.{first}"))


def write_settings(path: Path, **changes: Any) -> Path:
    """Writes settings of the GUI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**GUI, **changes}), encoding="utf-8")
    return path


def write_study(root: Path, steps: int = 100) -> Path:
    """A study of alpha: the base twice, the second time with other inputs, and three values."""
    loss, d = noise(1, steps), growing_d(steps, 1.06, 1e-4)
    write_run(root / "logs" / "1_13.08", loss, d, started=1.1e9)
    write_run(root / "logs" / "1_17.08", loss * 0.95, d, started=1.2e9)
    write_run(root / "logs" / "32", loss * np.linspace(1, 0.97, steps), d / 2)
    write_run(root / "logs" / "64", noise(2, steps), d / 4)
    write_run(root / "logs" / "128", loss * 0.95 * np.linspace(1, 0.9, steps), d / 8)
    for alpha in (1, 32, 64, 128):
        write_settings(root / "configs" / f"{alpha}.json", network_alpha=alpha)
    return root
