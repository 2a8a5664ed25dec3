"""What prompts name: LoRA files, textual inversions and wildcards, in the config's folders."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from torch import Tensor

from lora_lab.checkpoint.families.sd15 import SD15
from lora_lab.config import SamplingConfig
from lora_lab.errors import LabError, clipped, offered
from lora_lab.lora_file import lora_hash, read_lora
from lora_lab.prompts import (
    Embedding,
    LoRATag,
    Wildcards,
    expand_choices,
    read_embeddings,
    take_networks,
    wildcards_of,
)

Change = tuple[dict[str, Tensor], float]
"""Tensors of a kohya file, or some of them, and their weight."""


@dataclass(frozen=True)
class PromptNames:
    """Finds what prompts name.

    Args:
        config: Says in which folders to look.
    """

    config: SamplingConfig
    _loras: dict[str, tuple[dict[str, Tensor], str]] = field(default_factory=dict, repr=False)
    _embeddings: dict[int, list[Embedding]] = field(default_factory=dict, repr=False)

    @cached_property
    def wildcards(self) -> Wildcards | None:
        """The folder of wildcards, if there is one."""
        folder = self.config.wildcards_dir
        return None if folder is None else Wildcards(Path(folder).expanduser())

    def expand(self, text: str, seed: int) -> str:
        """A prompt with its choices made.

        Raises:
            LabError: It names a wildcard that is unknown, or no folder holds any.
        """
        unknown = wildcards_of(text)
        if unknown and self.wildcards is None:
            raise LabError(
                f"sampling.wildcards_dir is null, but a prompt holds __{unknown[0]}__: set it to "
                f"the folder that holds {unknown[0]}.txt"
            )
        return expand_choices(text, seed, self.wildcards)

    def loras(self, prompt: str) -> tuple[LoRATag, ...]:
        """The LoRAs that a prompt names.

        Raises:
            LabError: A tag can't be followed.
        """
        networks = take_networks(prompt)[1]
        if networks.problems:
            raise LabError(networks.problems[0])
        return networks.loras

    def changes(self, tags: Iterable[LoRATag]) -> list[Change]:
        """What named LoRAs add to a base, part by part.

        Raises:
            LabError: A file is missing or no LoRA.
        """
        found: list[Change] = []
        for tag in tags:
            tensors = self._lora(tag.name)[0]
            for weight, name in ((tag.unet, "unet"), (tag.text_encoder, "text_encoder")):
                prefix = SD15.lora_prefixes[name]
                part = {key: value for key, value in tensors.items() if key.startswith(prefix)}
                if part:
                    found.append((part, weight))
        return found

    def hashes(self, tags: Iterable[LoRATag], width: int) -> dict[str, str]:
        """What identifies the files behind names.

        Returns:
            Name of a LoRA -> first 12 hex digits of its sshs_model_hash; `embedding:<name>` -> of
            the sha256 of its vectors.
        """
        loras = {tag.name: self._lora(tag.name)[1] for tag in tags}
        return loras | {
            f"embedding:{found.name}": sha256(found.vectors.numpy().tobytes()).hexdigest()[:12]
            for found in self.embeddings(width)
        }

    def embeddings(self, width: int) -> list[Embedding]:
        """The textual inversions for a text encoder of some width.

        Raises:
            LabError: A file can't be read or was made for another text encoder.
        """
        if width not in self._embeddings:
            paths = [Path(path).expanduser() for path in self.config.embeddings]
            self._embeddings[width] = read_embeddings(paths, width)
        return self._embeddings[width]

    def _lora(self, name: str) -> tuple[dict[str, Tensor], str]:
        if name not in self._loras:
            tensors, metadata = read_lora(self._path(name))
            self._loras[name] = tensors, lora_hash(tensors, metadata)
        return self._loras[name]

    def _path(self, name: str) -> Path:
        """The file of a named LoRA; a name can't lead out of the folder."""
        if self.config.lora_dir is None:
            raise LabError(
                f"sampling.lora_dir is null, but a prompt holds <lora:{name}>: set it to the "
                f"folder that holds {name}.safetensors"
            )
        folder = Path(self.config.lora_dir).expanduser()
        files = {path.stem: path for path in sorted(folder.rglob("*.safetensors"))}
        if name not in files:
            known = offered(name, sorted(files))
            raise LabError(f"{folder} holds no LoRA called {clipped(name)}; there are: {known}")
        return files[name]
