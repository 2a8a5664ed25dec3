"""A few images at every save, drawn from fixed seeds, so that one sees the subject appear.

Nothing of training is touched: no random number of it is drawn, no gradient is kept, and the
weights that an averaging optimizer trains at come back to the bit.
"""

import logging
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import nn

from lora_lab.checkpoint.base_model import BaseModel, fingerprint
from lora_lab.clock import Clock
from lora_lab.config import TrainConfig
from lora_lab.data.batch import Batch
from lora_lab.data.prepare import Item
from lora_lab.errors import LabError
from lora_lab.images.png_info import write_image
from lora_lab.loggers.build import log_images
from lora_lab.loggers.wandb_run import LoggedImage
from lora_lab.optimizers import averaged_weights
from lora_lab.sampling.generate import (
    DrawSettings,
    ImageRequest,
    check_settings,
    draw_images,
    draw_settings,
)
from lora_lab.sampling.pipeline import base_recipe
from lora_lab.sampling.prompt_names import PromptNames
from lora_lab.sampling.prompt_subject import SUBJECT, prompt_text
from lora_lab.training.callbacks.lora_export import step_name
from lora_lab.training.callbacks.step_callback import StepCallback
from lora_lab.training.module import LoRAModule

log = logging.getLogger(__name__)
FOLDER = "training"
"""Inside the run's images/, where those of a checkpoint have its name."""


class Samples(StepCallback):
    """Draws the simple, the complex and the first random prompt at every save.

    Images go to `images/training/<prompt>/<step>.png`, and to TensorBoard and Weights & Biases as
    `samples/<prompt>`, all of a step in one call.

    Args:
        run_dir: The run folder.
        base: The model that is trained; draws with the LoRA as it stands.
        config: Of the run; `sampling` says what is drawn.
        items: The training images, whose folder tells the subject.
        steps: When to draw.
        clock: Counts the seconds.

    Raises:
        LabError: A prompt names what is unknown, or the size does not suit the model.
    """

    def __init__(
        self,
        run_dir: Path,
        base: BaseModel,
        config: TrainConfig,
        items: list[Item],
        steps: set[int],
        clock: Clock,
    ) -> None:
        self.run_dir = run_dir
        self.base = base
        self.output_name = config.output_name
        self.settings: DrawSettings = draw_settings(config.sampling)
        self.steps = steps
        self.clock = clock
        subject = config.sampling.subject or trained_folder(items)
        names = PromptNames(replace(config.sampling, subject=subject))
        prompts = config.sampling.prompts
        asked = {"simple": prompts.simple, "complex": prompts.complex}
        seeds = {name: config.sampling.seed for name in asked}
        if prompts.random:
            asked["random"], seeds["random"] = prompts.random[0], config.sampling.random_seeds[0]
        self.requests = {
            name: ImageRequest(
                prompt_text(text.replace(SUBJECT, subject), names, name, 0),
                config.sampling.negative,
                seeds[name],
            )
            for name, text in asked.items()
        }
        check_settings(base, self.settings)

    def on_step_end(self, trainer: pl.Trainer, module: LoRAModule, batch: Batch) -> None:
        """Draw when the step is one of those that save."""
        step = batch["step"]
        if step not in self.steps:
            return
        module.unread.read()  # a step that isn't finite ends the run here
        with self.clock.phase("sampling"):
            weights = averaged_weights(module.optimizer)
            with untouched(module), weights, trainer.precision_plugin.forward_context():
                self.base.vae.to(module.device)
                drawn = draw_images(self.base, list(self.requests.values()), self.settings)
                digest = fingerprint(module.network.tensors())[:16]
            pictures = {}
            lora = Path(step_name(self.output_name, step)).stem
            for (name, request), result in zip(self.requests.items(), drawn, strict=True):
                if result.image is None:
                    log.warning("no %s sample at step %d: %s", name, step, result.problem)
                    continue
                path = self.run_dir / "images" / FOLDER / name / f"{step:08d}.png"
                recipe = base_recipe(self.base, request, self.settings, 1.0, {})
                recipe = replace(recipe, lora=lora, lora_digest=digest).at(*result.place)
                write_image(path, result.image, recipe)
                pictures[f"samples/{name}"] = LoggedImage(path, f"step {step}: {request.prompt}")
            if pictures:
                log_images(list(trainer.loggers), pictures, step)


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Without dropout in the block, and afterwards as before, random numbers included."""
    modes = {part: part.training for part in module.modules()}
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        module.eval()
        try:
            yield
        finally:
            for part, training in modes.items():
                part.training = training


def trained_folder(items: list[Item]) -> str:
    """`<trigger> <class>` of the data folder with the most images.

    Raises:
        LabError: Its name tells none.
    """
    folders = Counter(item.example.folder for item in items)
    name = re.sub(r"^\d+_", "", folders.most_common(1)[0][0]).strip()
    if not name:
        raise LabError(
            "sampling.subject is null and the data folder's name tells none: set it, such as "
            'sampling.subject="zqx person"'
        )
    return name
