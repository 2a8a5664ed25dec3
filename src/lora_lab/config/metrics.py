"""The image metrics: settings and their ranges."""

from dataclasses import dataclass

from lora_lab.config.rules import Rule, between, or_null, text

_MAX_IMAGE_SEED = 2**32 - 1


@dataclass
class MetricsConfig:
    """The images that are drawn to be measured, and what measures them."""

    enabled: bool
    """Measure identity, prompt, diversity and preservation in images; true or false."""
    required: bool
    """Fail the sweep when they can't be measured, instead of telling it; true or false."""
    clip: str
    """CLIP: embedded:pocket-clip, a folder in transformers' layout, or a name on the hub."""
    dino: str | None
    """DINOv2: a folder in transformers' layout or a name on the hub; null: not measured."""
    face: str | None
    """Model pack of insightface for face identity, such as buffalo_l; null: not measured."""
    prompts: list[str]
    """Prompts with the trigger, {subject} in its place; at least 5."""
    seeds: list[int]
    """Image seeds of each of them; at least 2, 0 to 2^32 - 1."""
    plain_prompts: list[str]
    """Prompts without the trigger, on which the base model should stay as it is; at least 5."""
    plain_seeds: list[int]
    """Image seeds of each of them; 0 to 2^32 - 1."""
    choice_prompts: list[str]
    """Prompts with the trigger on which a checkpoint is chosen; none of prompts; at least 1."""
    choice_weights: list[float]
    """LoRA weights to choose from; each > 0."""
    steps: int
    """Sampling steps; 1 to 1000."""
    draw_batch_size: int
    """Images drawn at once; part of what makes images repeat exactly; 1 to 1000."""


def _seeds(key: str, least: int) -> Rule:
    return Rule(
        key,
        f"at least {least} different numbers from 0 to {_MAX_IMAGE_SEED}",
        lambda value: (
            len(set(value)) == len(value) >= least
            and all(0 <= seed <= _MAX_IMAGE_SEED for seed in value)
        ),
    )


def _prompts(key: str, least: int) -> Rule:
    return Rule(
        key,
        f"at least {least} different texts that are not empty",
        lambda value: len(set(value)) == len(value) >= least and all(map(str.strip, value)),
    )


RULES = (
    text("clip"),
    or_null(text("dino")),
    or_null(text("face")),
    _prompts("prompts", 5),
    _seeds("seeds", 2),
    _prompts("plain_prompts", 5),
    _seeds("plain_seeds", 1),
    _prompts("choice_prompts", 1),
    Rule(
        "choice_weights",
        "a list of numbers > 0",
        lambda value: bool(value) and all(0 < weight < 10 for weight in value),
    ),
    between("steps", 1, 1000),
    between("draw_batch_size", 1, 1000),
)


def problems(metrics: MetricsConfig) -> list[str]:
    """Returns one line for each pair of settings that don't go together."""
    shared = set(metrics.prompts) & set(metrics.choice_prompts)
    if not shared:
        return []
    return [
        "metrics.choice_prompts must hold none of metrics.prompts, or a checkpoint is chosen and "
        f"judged on the same images, got {sorted(shared)[0]!r} in both"
    ]
