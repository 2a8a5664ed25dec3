"""LoRA files during and after training, and the checkpoint that resuming needs."""

import hashlib
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import lightning.pytorch as pl

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.clock import Clock
from lora_lab.config import TrainConfig
from lora_lab.data.batch import Batch
from lora_lab.data.examples import folder_counts, tag_frequency
from lora_lab.data.loader import PairedLoader
from lora_lab.data.prepare import Item, bucket_limits, bucket_step
from lora_lab.files import sha256_file
from lora_lab.lora_file import TrainingFacts, build_metadata, write_lora
from lora_lab.network import LoRANetwork, network_metadata
from lora_lab.optimizers import averaged_weights, described
from lora_lab.training.callbacks.step_callback import StepCallback
from lora_lab.training.callbacks.stop import save_checkpoint
from lora_lab.training.module import LoRAModule


@dataclass
class FileFacts:
    """What the metadata of a LoRA file is made of."""

    config: TrainConfig
    base: BaseModel
    items: list[Item]
    loader: PairedLoader
    network: LoRANetwork
    started_at: float
    """Unix time in seconds."""
    session_id: int = field(default_factory=lambda: secrets.randbelow(2**32))

    def metadata(self, step: int, epoch: int) -> dict[str, str]:
        """Metadata of the file that is saved after a step.

        Args:
            step: Steps done, from 1.
            epoch: Epochs begun, from 1.
        """
        every = [item.example for item in self.items]
        examples = [example for example in every if not example.is_reg]
        buckets: Counter[tuple[int, int]] = Counter()
        errors = []
        for item in self.items:
            buckets[item.bucket] += item.example.repeats
            (width, height), (wide, high) = item.example.image.size, item.bucket
            errors.append(abs(wide / high - width / height))
        facts = TrainingFacts(
            step=step,
            total_steps=self.config.epochs * self.loader.steps_per_epoch,
            epoch=epoch,
            batches_per_epoch=len(self.loader),
            image_counts=folder_counts(examples),
            reg_image_counts=folder_counts([example for example in every if example.is_reg]),
            tag_frequency=tag_frequency(examples),
            bucket_counts=dict(buckets),
            bucket_limits=bucket_limits(self.config.data, bucket_step(self.config.data, self.base)),
            mean_aspect_error=sum(errors) / len(errors),
            optimizer=described(self.config.optimizer),
            network=network_metadata(self.network),
            prediction_type=self.base.noise_scheduler.config["prediction_type"],
            checkpoint_name=self.base.path.name,
            checkpoint_sha256=self.checkpoint_hashes[0],
            checkpoint_legacy_hash=self.checkpoint_hashes[1],
            started_at=self.started_at,
            finished_at=time.time(),
            session_id=self.session_id,
        )
        return build_metadata(self.config, facts)

    @cached_property
    def checkpoint_hashes(self) -> tuple[str | None, str | None]:
        """sha256 of a single-file checkpoint, and A1111's old 8 digits; None for a folder."""
        path = self.base.path
        if path.is_dir():
            return None, None
        with path.open("rb") as file:
            file.seek(0x100000)
            legacy = hashlib.sha256(file.read(0x10000)).hexdigest()[:8]
        return sha256_file(path), legacy


class LoRAExport(StepCallback):
    """Writes kohya files at every save. Comes after the callbacks whose state is to be kept.

    Args:
        run_dir: The run folder; files go to its lora/.
        output_name: File name without extension.
        steps: When to save, in ascending order; the last is the end of the run.
        facts: What the files' metadata is made of.
        checkpoints: When last.ckpt is written, too.
        clock: Counts the seconds.
    """

    def __init__(
        self,
        run_dir: Path,
        output_name: str,
        steps: list[int],
        checkpoints: set[int],
        facts: FileFacts,
        clock: Clock,
    ) -> None:
        self.run_dir = run_dir
        self.output_name = output_name
        self.steps = steps
        self.facts = facts
        self.checkpoints = checkpoints
        self.clock = clock

    def state_dict(self) -> dict[str, dict[str, float]]:
        """Seconds used so far, which a resumed run adds to."""
        return {"seconds": dict(self.clock.seconds)}

    def load_state_dict(self, state_dict: dict[str, dict[str, float]]) -> None:
        """Add the seconds of the run that was interrupted."""
        for phase, seconds in state_dict["seconds"].items():
            self.clock.seconds[phase] += seconds

    def on_step_end(self, trainer: pl.Trainer, module: LoRAModule, batch: Batch) -> None:
        """Save when the step is one of those that save."""
        step = batch["step"]
        if step not in self.steps:
            return
        module.unread.read()  # a step that isn't finite ends the run here
        with self.clock.phase("saving"):
            with averaged_weights(module.optimizer):
                tensors = module.network.tensors()
            metadata = self.facts.metadata(step, batch["epoch"])
            names = [step_name(self.output_name, step)]
            if step == self.steps[-1]:
                names.append(f"{self.output_name}.safetensors")
            for name in names:
                write_lora(self.run_dir / "lora" / name, tensors, metadata)
            if step in self.checkpoints:
                save_checkpoint(trainer, self.run_dir)


def step_name(output_name: str, step: int) -> str:
    """Kohya's name for a save in mid-run: ``<output_name>-step00000500.safetensors``."""
    return f"{output_name}-step{step:08d}.safetensors"


def save_steps(total_steps: int, save_every: float) -> list[int]:
    """The steps after which a LoRA is saved: each share of the run, and its end.

    Args:
        total_steps: Optimizer steps of the run.
        save_every: Share of the run, in (0, 1].
    """
    count = int(1.0 / save_every + 1e-9)
    shares = {max(1, round(total_steps * save_every * index)) for index in range(1, count + 1)}
    return sorted({step for step in shares if step < total_steps} | {total_steps})


def checkpoint_steps(config: TrainConfig, total_steps: int) -> list[int]:
    """The saves after which last.ckpt is written, too: at the end only if it is to be kept."""
    saves = save_steps(total_steps, config.save_every)
    return saves if config.callbacks.keep_last_checkpoint else saves[:-1]
