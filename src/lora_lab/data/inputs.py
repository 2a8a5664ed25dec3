"""Everything that a run reads: images, captions, base model, and the latents made of them."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.clock import Clock
from lora_lab.config import ModelConfig, TrainConfig
from lora_lab.data.examples import Examples
from lora_lab.data.folders import find_examples
from lora_lab.data.latent_cache import LatentCache
from lora_lab.data.prepare import Item, latents_fingerprint, prepare
from lora_lab.data.truncation import tell_truncated
from lora_lab.lora_file.merge import load_model

ImageLoss = tuple[str, str, int, float]
"""Set (held out or training), image, timestep, loss."""


@dataclass
class SharedInputs:
    """What the runs of one process need not load twice."""

    bases: dict[str, BaseModel] = field(default_factory=dict)
    """What `model` says -> base model."""
    latents: dict[str | None, LatentCache] = field(default_factory=dict)
    """Cache folder -> latents."""
    bare_losses: dict[str, list[ImageLoss]] = field(default_factory=dict)
    """What the losses of the bare base depend on -> these losses."""

    def base(self, config: ModelConfig) -> BaseModel:
        """The base model that a config names, with the LoRAs merged that it names."""
        key = repr(replace(config, clip_skip=1))  # clip skip doesn't touch a weight
        if key not in self.bases:
            self.bases[key] = load_model(config.checkpoint, config)
        return self.bases[key]

    def fingerprints(self, config: TrainConfig) -> dict[str, str]:
        """sha256 of images, captions, checkpoint and VAE of a run; the base model is kept.

        Raises:
            LabError: The inputs can't be read.
        """
        return _fingerprints(find_examples(config.data), self.base(config.model))

    def cache(self, folder: str | None) -> LatentCache:
        """The latents kept in a folder, or in memory."""
        if folder not in self.latents:
            self.latents[folder] = LatentCache(None if folder is None else Path(folder))
        return self.latents[folder]


@dataclass(frozen=True)
class Inputs:
    """Everything that a run reads, ready for training."""

    base: BaseModel
    examples: Examples
    items: list[Item]
    """Training images, then regularisation images."""
    held_out: list[Item]
    bare_losses: dict[str, list[ImageLoss]]
    """Of the process's runs, to be added to."""

    @classmethod
    def load(cls, config: TrainConfig, shared: SharedInputs, clock: Clock) -> "Inputs":
        """Read the images, then the base model, and encode the images.

        Args:
            config: The run's settings.
            shared: What other runs of the process have loaded, and what is added to it.
            clock: Counts the seconds of the encoding.

        Raises:
            LabError: One of them can't be read.
        """
        examples = find_examples(config.data)
        base = shared.base(config.model)
        tell_truncated(examples, base.tokenizer, config.data)
        with clock.phase("caching"):
            cache = shared.cache(config.data.cache_dir)
            shown = examples.train + examples.reg
            items = prepare(shown, base, cache, config.data, augment=True)
            held_out = prepare(examples.held_out, base, cache, config.data, augment=False)
        return cls(base, examples, items, held_out, shared.bare_losses)

    @property
    def training_items(self) -> list[Item]:
        """The items without regularisation images."""
        return [item for item in self.items if not item.example.is_reg]

    def fingerprints(self) -> dict[str, str]:
        """sha256 of images, captions, checkpoint, VAE, and the latents they gave.

        Those of the held-out images stand by themselves: while they agree, a held-out loss is the
        same quantity, whatever was trained on.
        """
        return {
            **_fingerprints(self.examples, self.base),
            "latents": latents_fingerprint("train", self.items),
            "held_out_latents": latents_fingerprint("held_out", self.held_out),
        }


def _fingerprints(examples: Examples, base: BaseModel) -> dict[str, str]:
    return {
        **examples.fingerprints(),
        "checkpoint": base.fingerprint,
        "vae": base.vae_fingerprint,
    }
