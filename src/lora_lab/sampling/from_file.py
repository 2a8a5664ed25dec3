"""Images from one LoRA file, ours or not: a prompt, some seeds."""

from collections.abc import Sequence
from pathlib import Path

from lora_lab.config import SamplingConfig
from lora_lab.lora_file.merge import load_model
from lora_lab.run_folder.saved_loras import file_rows
from lora_lab.sampling.generate import ImageRequest, check_settings, draw_settings
from lora_lab.sampling.pipeline import ImageTask, LoRAPipeline
from lora_lab.sampling.prompt_names import PromptNames
from lora_lab.sampling.prompt_subject import distinct, prompt_text, safe_name, with_subject


def draw_from_file(
    lora: Path, output: Path, prompt: str | None, seeds: Sequence[int], config: SamplingConfig
) -> tuple[list[Path], list[str]]:
    """Draw images from one LoRA file.

    Args:
        lora: The file.
        output: Images go to `<output>/<checkpoint>/<LoRA>-<seed>.png`.
        prompt: None: the simple prompt.
        seeds: One image each, on every checkpoint.
        config: How to draw.

    Returns:
        The images, and a line for each that is missing.

    Raises:
        LabError: LoRA or checkpoint can't be read, or a prompt names an unknown wildcard.
    """
    file_rows(lora, output)
    text = prompt or config.prompts.simple
    config = with_subject(config, [text], [lora])
    filled = prompt_text(text, PromptNames(config), "prompt", 0)
    requests = [ImageRequest(filled, config.negative, seed) for seed in seeds]
    paths, problems = list[Path](), list[str]()
    names: list[str] = []
    for checkpoint in config.checkpoints:
        base = load_model(checkpoint, config)
        settings = draw_settings(config)
        check_settings(base, settings)
        names = distinct([*names, safe_name(base.name)])
        files = [output / names[-1] / f"{lora.stem}-{r.seed}.png" for r in requests]
        tasks = [
            ImageTask(path, request, settings, lora, config.lora_weight, plain_name=True)
            for path, request in zip(files, requests, strict=True)
        ]
        for task, outcome in zip(tasks, LoRAPipeline(base, config).draw(tasks), strict=True):
            if outcome.path is None:
                problems.append(f"{task.path.name}: {outcome.problem}")
            paths += [outcome.path] if outcome.path else []
    return paths, problems
