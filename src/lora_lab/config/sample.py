"""One call of sample.py: its settings and their ranges."""

from dataclasses import dataclass

from lora_lab.config.rules import at_least, between, or_null, text
from lora_lab.config.sampling import SamplingConfig


@dataclass
class SampleConfig:
    """One call of sample.py: the grids of a run or sweep, or images from one LoRA file."""

    run: str | None
    """Run or sweep folder whose grids are drawn; either this or lora."""
    lora: str | None
    """LoRA file (kohya's format) to draw images from; either this or run."""
    prompt: str | None
    """Prompt of the images drawn with lora, in A1111's syntax; null: the simple prompt."""
    count: int
    """How many images are drawn with lora, at seeds sampling.seed, + 1, ...; >= 1."""
    output: str
    """Folder for the images drawn with lora."""
    threads: int
    """CPU threads of PyTorch; >= 0, 0 leaves PyTorch's own choice."""
    debug: bool
    """Show tracebacks of errors; true or false."""
    sampling: SamplingConfig
    """How images are drawn from a LoRA."""


RULES = (
    or_null(text("run")),
    or_null(text("lora")),
    or_null(text("prompt")),
    between("count", 1, 10_000),
    text("output"),
    at_least("threads", 0),
)


def problems(config: SampleConfig) -> list[str]:
    """Returns one line for each pair of settings that don't go together."""
    if (config.run is None) != (config.lora is None):
        return []
    return [
        f"either run or lora must be set, got run={config.run} and lora={config.lora}; "
        "run=<run or sweep folder> draws grids, lora=<file> draws images"
    ]
