"""The axes of a grid: which places each has, and the image that three of them point at."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from lora_lab.config import SamplingConfig
from lora_lab.config.sampling import PROMPT_NAMES, GridConfig
from lora_lab.run_folder.saved_loras import Rows, RunLoRAs
from lora_lab.sampling.generate import DrawSettings, draw_settings


@dataclass(frozen=True)
class PromptChoice:
    """One prompt of a grid."""

    kind: str
    """simple, complex, random or text: the folder of its images."""
    index: int
    """Number within its kind, from 0."""
    text: str
    """As the config has it; of a complex prompt: unless a checkpoint has another."""
    seed: int
    """Where the seed is no axis."""


@dataclass(frozen=True)
class Point:
    """All that one image of a grid is drawn from."""

    run: RunLoRAs
    checkpoint: str
    share: float | None
    """Share of the run after which the LoRA was saved; None: the final one."""
    lora_weight: float
    prompt: PromptChoice
    seed: int | None
    """None: the prompt's own."""
    settings: DrawSettings

    @property
    def identity(self) -> "Identity":
        """What two points share if they mean the same image, whatever their run is called."""
        rest = self.checkpoint, self.share, self.lora_weight, self.prompt, self.seed
        return self.run.folder, *rest, self.settings


Identity = tuple[Hashable, ...]


@dataclass(frozen=True)
class AxisPlace:
    """One place on an axis."""

    label: str
    note: str
    changes: dict[str, Any]
    """Fields of Point and what they become here."""
    is_base: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    """The same of its settings."""


def places(
    axis: str | None, rows: Rows, grid: GridConfig, config: SamplingConfig, checkpoints: list[str]
) -> list[AxisPlace]:
    """The places on an axis; one without a name where there is no axis."""
    if axis is None:
        return [AxisPlace("", "", {})]
    if axis == "value":
        named = bool(rows.parameter)
        return [
            AxisPlace(run.label if named else "", run.note, {"run": run}, run.is_base)
            for run in rows.runs
        ]
    if axis == "step":
        return _share_places(rows)
    if axis == "prompt":
        return [_prompt_place(choice, grid) for choice in prompt_choices(grid, config)]
    if axis == "checkpoint":
        return [AxisPlace(name, "", {"checkpoint": name}) for name in checkpoints]
    values: Sequence[Any] = getattr(config.axes, axis)
    if axis in {one.name for one in fields(DrawSettings)}:
        return [AxisPlace(_shown(value), "", {}, settings={axis: value}) for value in values]
    return [AxisPlace(_shown(value), "", {axis: value}) for value in values]


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}" if value < 1e5 else f"{value:.0f}"


def _share_places(rows: Rows) -> list[AxisPlace]:
    """A place for each share of the run; its step too if it is the same in every run."""
    result = []
    for share in sorted({save.share for run in rows.runs for save in run.saves}) or [1.0]:
        steps = {save.step for run in rows.runs for save in run.saves if save.share == share}
        note = f"step {min(steps)}" if share and len(steps) == 1 else ""
        result.append(
            AxisPlace(f"{100 * share:.3g} %" if share else "saved", note, {"share": share})
        )
    return result


def _prompt_place(choice: PromptChoice, grid: GridConfig) -> AxisPlace:
    seed = "" if "seed" in (grid.rows, grid.columns, grid.pages) else f"seed {choice.seed}"
    if choice.kind == "text":
        return AxisPlace(choice.text, seed, {"prompt": choice})
    number = f"{choice.index + 1}" if choice.kind == "random" else choice.kind
    return AxisPlace(number, seed, {"prompt": choice})


def prompt_choices(grid: GridConfig, config: SamplingConfig) -> list[PromptChoice]:
    """The prompts of a grid, in the order of its config."""
    prompts = config.prompts
    choices = []
    for index, text in enumerate(grid.prompts):
        if text == "random":
            pairs = zip(prompts.random, config.random_seeds, strict=True)
            choices += [PromptChoice("random", i, t, s) for i, (t, s) in enumerate(pairs)]
        elif text in PROMPT_NAMES:
            choices.append(PromptChoice(text, 0, getattr(prompts, text), config.seed))
        else:
            choices.append(PromptChoice("text", index, text, config.seed))
    return choices


def first_point(rows: Rows, grid: GridConfig, config: SamplingConfig, checkpoint: str) -> Point:
    """What a grid's axes start from: the first run, its final LoRA, the config's settings."""
    return Point(
        run=rows.runs[0],
        checkpoint=checkpoint,
        share=None,
        lora_weight=config.lora_weight,
        prompt=prompt_choices(grid, config)[0],
        seed=None,
        settings=draw_settings(config),
    )


def at(point: Point, *chosen: AxisPlace) -> Point:
    """The point at some places."""
    for place in chosen:
        settings = replace(point.settings, **place.settings)
        point = replace(point, settings=settings, **place.changes)
    return point
