"""From a point on a grid's axes to the image that is to be drawn, or to why there is none."""

from lora_lab.config import SamplingConfig
from lora_lab.errors import LabError
from lora_lab.run_folder.saved_loras import SavedLoRA
from lora_lab.sampling.generate import ImageRequest, draw_settings
from lora_lab.sampling.grids.axes import Point, PromptChoice
from lora_lab.sampling.pipeline import ImageResult, ImageTask
from lora_lab.sampling.prompt_names import PromptNames
from lora_lab.sampling.prompt_subject import prompt_text


def find_save(point: Point) -> SavedLoRA | None:
    """The LoRA file of a point; None where its run has none."""
    saves = point.run.saves
    if point.share is None:
        return saves[-1] if saves and not point.run.problem else None
    return next((save for save in saves if save.share == point.share), None)


def choice_text(choice: PromptChoice, checkpoint: str, config: SamplingConfig) -> str:
    """A prompt for a checkpoint, with its choices made.

    Raises:
        LabError: A wildcard is unknown.
    """
    text = choice.text
    if choice.kind == "complex":
        text = config.prompts.complex_for.get(checkpoint, text)
    return prompt_text(text, PromptNames(config), choice.kind, choice.index)


def make_task(point: Point, config: SamplingConfig) -> ImageTask | ImageResult:
    """The image of a point, or why there is none."""
    save = find_save(point)
    if save is None:
        reason = "no final LoRA" if point.share is None else "no LoRA saved here"
        return ImageResult(None, point.run.problem or reason, expected=True)
    try:
        prompt = choice_text(point.prompt, point.checkpoint, config)
    except LabError as error:
        return ImageResult(None, " ".join(str(error).split()))
    seed = point.prompt.seed if point.seed is None else point.seed
    number = f"-{point.prompt.index + 1}" if point.prompt.kind in ("random", "text") else ""
    folder = point.run.folder / "images" / point.checkpoint / point.prompt.kind
    return ImageTask(
        path=folder / f"{save.step:08d}{number}.png",
        request=ImageRequest(prompt, config.negative, seed),
        settings=point.settings,
        lora=save.path,
        weight=point.lora_weight,
        plain_name=point.settings == draw_settings(config)
        and point.lora_weight == config.lora_weight
        and seed == point.prompt.seed
        and point.prompt.kind != "text"
        and (point.prompt.kind != "random" or save is point.run.saves[-1]),
    )
