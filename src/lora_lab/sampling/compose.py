"""What the grids of a run or sweep say: rows, columns, and the header that states the recipe."""

from pathlib import Path

from PIL import Image

from lora_lab.base_model import BaseModel
from lora_lab.config import SamplingConfig
from lora_lab.sampling.layout import Cell, Column, Grid, Row, cell_factor
from lora_lab.sampling.run_images import Outcome, PlannedImage, plan_images
from lora_lab.sampling.saved_loras import Rows, RunLoRAs, SavedLoRA

_TITLES = {"simple": "simple prompt", "complex": "complex prompt", "random": "random prompts"}


def compose_grid(
    rows: Rows,
    images: dict[Path, dict[tuple[str, int, int], Outcome]],
    kind: str,
    base: BaseModel,
    config: SamplingConfig,
) -> Grid:
    """Put the images of all runs into one grid.

    Args:
        rows: The runs.
        images: Run folder -> (kind, index of the prompt, step) -> image.
        kind: simple or complex (a column a saved LoRA), or random (a column a prompt).
        base: The checkpoint that drew.
        config: How it drew.
    """
    planned = [item for item in plan_images(config, final=True) if item.kind == kind]
    if kind == "random":
        columns = tuple(
            Column(f"{item.index + 1}", f"seed {item.request.seed}") for item in planned
        )
        cells = {run.folder: _random_cells(run, images[run.folder], planned) for run in rows.runs}
    else:
        shares = sorted({save.share for run in rows.runs for save in run.saves}) or [1.0]
        columns = tuple(_share_column(share, rows) for share in shares)
        cells = {
            run.folder: _share_cells(run, images[run.folder], kind, shares) for run in rows.runs
        }
    subject = rows.parameter or rows.runs[0].folder.resolve().name
    return Grid(
        title=f"{subject} · {_TITLES[kind]} · {base.name}",
        facts=_facts(kind, planned, base, config),
        corner=rows.parameter,
        columns=columns,
        rows=tuple(
            Row(run.label if rows.parameter else "", run.note, cells[run.folder], run.is_base)
            for run in rows.runs
        ),
    )


def _share_column(share: float, rows: Rows) -> Column:
    """A column for a share of the run; its step too if it is the same in every row."""
    steps = {save.step for run in rows.runs for save in run.saves if save.share == share}
    if share == 0:
        return Column("saved", "")
    return Column(f"{100 * share:.3g} %", f"step {min(steps)}" if len(steps) == 1 else "")


def _share_cells(
    run: RunLoRAs,
    images: dict[tuple[str, int, int], Outcome],
    kind: str,
    shares: list[float],
) -> tuple[Cell, ...]:
    by_share: dict[float, SavedLoRA] = {save.share: save for save in run.saves}
    missing = run.problem or "no LoRA saved here"
    cells = []
    for share in shares:
        save = by_share.get(share)
        outcome = images.get((kind, 0, save.step)) if save else None
        cells.append(_cell(outcome, missing))
    return tuple(cells)


def _random_cells(
    run: RunLoRAs, images: dict[tuple[str, int, int], Outcome], planned: list[PlannedImage]
) -> tuple[Cell, ...]:
    missing = run.problem or "no final LoRA"
    last = run.saves[-1].step if run.saves else 0
    return tuple(_cell(images.get(("random", item.index, last)), missing) for item in planned)


def _cell(outcome: Outcome | None, missing: str) -> Cell:
    if outcome is None:
        return Cell(None, missing)
    if outcome.path is None:
        return Cell(None, outcome.problem)
    with Image.open(outcome.path) as image:
        return Cell(image.convert("RGB"))


def _facts(
    kind: str, planned: list[PlannedImage], base: BaseModel, config: SamplingConfig
) -> tuple[tuple[str, str], ...]:
    """Prompt, negative prompt, settings and checkpoint, as lines of the header."""
    prompts = [item.request.prompt for item in planned]
    if kind == "random":
        text = "\n".join(f"{number}  {prompt}" for number, prompt in enumerate(prompts, 1))
    else:
        text = prompts[0]
    factor = cell_factor(config.width, config.height)
    shown = "" if factor == 1 else f" (shown at {factor:.3g}×)"
    settings = [
        config.sampler,
        f"{config.steps} steps",
        f"guidance {config.guidance:g}",
        "random seeds" if kind == "random" else f"seed {config.seed}",
        f"{config.width}×{config.height} px{shown}",
        f"clip skip {config.clip_skip}",
        f"LoRA weight {config.lora_weight:g}",
    ]
    return (
        ("Prompts" if kind == "random" else "Prompt", text),
        ("Negative", config.negative or "none"),
        ("Settings", ", ".join(settings)),
        ("Checkpoint", f"{base.name}, {base.fingerprint[:10]}"),
    )
