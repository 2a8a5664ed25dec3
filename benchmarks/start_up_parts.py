"""Seconds of each part of a run's start, in the order in which train.py needs them.

    python -m benchmarks.start_up_parts <Unix time of the call> [key=value ...]

A process of its own, because imports are paid once a process. Prints the parts as JSON.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PYTHON = "Python itself"
STEP = "first step"


class Parts(dict[str, float]):
    """Part -> its seconds."""

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Adds the time of the block to a part."""
        start = time.perf_counter()
        yield
        self[name] = self.get(name, 0.0) + time.perf_counter() - start


def measure_parts(overrides: list[str], parts: Parts) -> None:
    """Import, load and train for an epoch; adds the time of each part until the first step's end.

    Args:
        overrides: As for train.py.
        parts: Gets the seconds.
    """
    with parts.timed("import torch"):
        import torch  # noqa: F401
    with parts.timed("import lightning"):
        import lightning.pytorch  # noqa: F401
    with parts.timed("import classes of diffusers, transformers, peft"):
        import_classes()
    with parts.timed("import of the project, settings"):
        from benchmarks.settings import train_settings
        from lora_lab.config import ModelConfig
        from lora_lab.data.inputs import SharedInputs
        from lora_lab.run_folder.record import read_facts
        from lora_lab.training.callbacks import build as _callbacks  # noqa: F401
        from train import train

        config = train_settings([*overrides, "callbacks.progress=false", "save_every=1.0"])
        config.epochs = 1
    shared = SharedInputs()
    load = shared.base

    def timed_load(model: ModelConfig) -> object:
        with parts.timed("load the base"):
            return load(model)

    shared.base = timed_load  # type: ignore[method-assign, assignment]
    with tempfile.TemporaryDirectory() as name:
        train(config, Path(name), shared)
        facts = read_facts(Path(name))
        rows = (Path(name) / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert facts is not None
    parts["encode latents"] = facts["seconds"]["caching"]
    started = facts["seconds"]["start_up"] - parts["load the base"]
    parts["read images, inject the LoRA, make the trainer"] = started
    parts[STEP] = float(rows[1].rpartition(",")[2])


def import_classes() -> None:
    """Import the classes that a run uses, where the packages alone import hardly anything."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # noqa: F401
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel  # noqa: F401
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler  # noqa: F401
    from peft import LoraConfig  # noqa: F401
    from transformers.models.clip.modeling_clip import CLIPTextModel  # noqa: F401
    from transformers.models.clip.tokenization_clip import CLIPTokenizer  # noqa: F401


def main() -> int:
    """Runs the command; returns its exit status."""
    found = Parts({PYTHON: time.time() - float(sys.argv[1])})
    measure_parts(sys.argv[2:], found)
    sys.stdout.write(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
