"""What `{subject}` in a prompt stands for, and the prompt that comes out."""

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lora_lab.config import SamplingConfig
from lora_lab.errors import LabError
from lora_lab.files import require_regular
from lora_lab.randomness import derive_seed
from lora_lab.sampling.prompt_names import PromptNames

SUBJECT = "{subject}"


def prompt_text(text: str, names: PromptNames, kind: str, index: int) -> str:
    """A prompt of the config with its subject and with its choices made.

    Raises:
        LabError: A wildcard is unknown.
    """
    choice_seed = derive_seed(names.config.seed, "prompt", kind, index)
    return names.expand(text.replace(SUBJECT, names.config.subject or SUBJECT), choice_seed)


def with_subject(
    config: SamplingConfig, texts: Iterable[str], loras: Iterable[Path]
) -> SamplingConfig:
    """Fill in the subject of the prompts where the config leaves it to the LoRA.

    Args:
        config: How to draw.
        texts: The prompts that are drawn.
        loras: LoRA files; the first that tells its data folder `<repeats>_<trigger> <class>`
            tells the subject.

    Raises:
        LabError: A prompt needs the subject and no file tells it.
    """
    if config.subject is not None or not any(SUBJECT in text for text in texts):
        return config
    for lora in loras:
        subject = trained_subject(lora)
        if subject:
            return replace(config, subject=subject)
    raise LabError(
        f"sampling.subject is null and no LoRA file tells it, but a prompt holds {SUBJECT}: "
        'set it, such as sampling.subject="zqx person"'
    )


def trained_subject(lora: Path) -> str | None:
    """`<trigger> <class>` of the largest data folder that a LoRA file names; None if unknown."""
    try:
        require_regular(lora)
        with safe_open(lora, framework="pt") as file:
            folders = json.loads((file.metadata() or {})["ss_dataset_dirs"])
        name = max(folders, key=lambda folder: folders[folder]["img_count"])
    except (SafetensorError, OSError, LookupError, ValueError, TypeError, RecursionError):
        return None
    return re.sub(r"^\d+_", "", name).strip() or None


def safe_name(name: str) -> str:
    """A checkpoint's name as a file name."""
    return re.sub(r"[^\w.+-]+", "_", name).strip("._") or "checkpoint"


def distinct(names: list[str]) -> list[str]:
    """The names, with a number behind those that were there before."""
    result: list[str] = []
    for name in names:
        number, unused = 1, name
        while unused in result:
            number += 1
            unused = f"{name}-{number}"
        result.append(unused)
    return result
