"""One call of sample.py: its settings and their ranges."""

from dataclasses import dataclass, replace

from lora_lab.config.rules import between, one_of, or_null, prompt, text
from lora_lab.config.sampling import AXES, GridConfig, SamplingConfig
from lora_lab.config.trainer import MAX_THREADS


@dataclass
class SampleConfig:
    """One call of sample.py: the grids of a run or sweep, or images from one LoRA file."""

    run: str | None
    """Run or sweep folder whose grids are drawn; either this, lora or png."""
    lora: str | None
    """LoRA file (kohya's format) to draw images from; with png: where its LoRA lies now."""
    png: str | None
    """An image of ours to draw again, byte for byte."""
    rows: str | None
    """With run or lora: one grid with this axis instead of sampling.grids; null: those."""
    columns: str | None
    """With rows: the other axis; null: seed, or lora_weight where the rows are seeds."""
    pages: str | None
    """With rows: a third axis, a picture for each of its places; or null."""
    prompt: str | None
    """Prompt of the images or of the grid, in A1111's syntax; null: the simple prompt."""
    scores: str | None
    """JSON file: image (path from the run or sweep folder) and what stands under it; or null."""
    count: int
    """How many images are drawn with lora, at seeds sampling.seed, + 1, ...; >= 1."""
    output: str
    """Folder for the images drawn with lora."""
    threads: int | None
    """CPU threads of PyTorch; 0 to 1024, 0 is PyTorch's choice; null: the run's own, else 2."""
    debug: bool
    """Show tracebacks of errors; true or false."""
    sampling: SamplingConfig
    """How images are drawn from a LoRA."""


RULES = (
    or_null(text("run")),
    or_null(text("lora")),
    or_null(text("png")),
    or_null(one_of("rows", tuple(AXES))),
    or_null(one_of("columns", tuple(AXES))),
    or_null(one_of("pages", tuple(AXES))),
    or_null(prompt("prompt")),
    or_null(text("scores")),
    between("count", 1, 10_000),
    text("output"),
    or_null(between("threads", 0, MAX_THREADS)),
)


def problems(config: SampleConfig) -> list[str]:
    """Return one line for each pair of settings that don't go together."""
    found = []
    given = [name for name in ("run", "png") if getattr(config, name) is not None]
    if len(given) > 1 or (config.run is not None) == (config.lora is not None or bool(config.png)):
        found.append(
            f"one of run, lora and png must be set, got run={config.run}, lora={config.lora} and "
            f"png={config.png}; run=<run or sweep folder> draws grids, lora=<file> draws images, "
            "png=<image> draws it again (lora= then says where its LoRA lies)"
        )
    if config.rows is None and (config.columns is not None or config.pages is not None):
        found.append("rows must be set where columns or pages are, such as rows=lora_weight")
    return found


def sampling_of(config: SampleConfig) -> SamplingConfig:
    """How images are drawn, with the grid that rows and columns ask for in place of the others."""
    if config.rows is None:
        return config.sampling
    columns = config.columns or ("lora_weight" if config.rows == "seed" else "seed")
    sides = [config.rows, columns, *([config.pages] if config.pages else [])]
    prompts = [config.prompt or ("random" if "prompt" in sides else "simple")]
    grid = GridConfig("-".join(sides), config.rows, columns, config.pages, prompts)
    return replace(config.sampling, grids=[grid])
