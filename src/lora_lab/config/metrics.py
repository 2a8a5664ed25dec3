"""The metrics, one entry each, and the settings of the images that are drawn to be measured."""

from dataclasses import dataclass
from enum import StrEnum

from lora_lab.config.rules import Rule, between, or_null, text

_MAX_IMAGE_SEED = 2**32 - 1


class Against(StrEnum):
    """What the embeddings of a LoRA's images are held against."""

    TRAINING_IMAGES = "the training images"
    HELD_OUT_IMAGES = "pictures of the subject that were not trained on"
    PROMPT = "its own prompt"
    EACH_OTHER = "the other images of its prompt"
    BASE = "the bare base's image of the same prompt and noise"


@dataclass(frozen=True)
class Metric:
    """All that is particular to one metric; scoring, verdict and report read it here."""

    name: str
    """In files: held_out_loss, identity_clip ..."""
    title: str
    word: str
    """In sentences: "worse in identity"."""
    lower_is_better: bool
    cluster: str
    """What is measured several times: a held-out image or a prompt."""
    meaning: str
    """One sentence on what it measures."""
    unit: str
    against: Against | None = None
    """None: it isn't made of images' embeddings."""
    formula: str = ""
    """Name in FORMULAS (metrics/scores.py)."""
    encoder: str = ""
    """Which encoder embeds the images; empty: the first of LIKENESS that is there."""
    judged: bool = True
    """Whether a verdict is given; False for a second figure of what another metric judges."""
    is_loss: bool = False
    """Whether it is another quantity as soon as images, latents or checkpoint differ."""


LIKENESS = ("dino", "clip")
"""What compares generated images with each other and with the bare base's: DINO sees the subject
where CLIP sees its class."""
_COSINE, _DISTANCE = "Cosine similarity", "1 − cosine similarity"
METRICS = (
    Metric(
        *("held_out_loss", "Held-out loss", "held-out loss", True, "image"),
        "Loss on images that were not trained on, at fixed timesteps and under fixed noise.",
        "Mean squared error",
        is_loss=True,
    ),
    Metric(
        *("memorisation", "Memorisation", "memorisation", True, "image"),
        "How well the gain over the bare base tells training images from held-out ones: 0.5 tells "
        "nothing, 1 every image.",
        "Area under the curve",
        judged=False,
        is_loss=True,
    ),
    Metric(
        *("identity_clip", "Identity (CLIP)", "identity", False, "prompt"),
        "Similarity of the generated images to pictures of the subject that were not trained on, "
        "CLIP-I.",
        *(_COSINE, Against.HELD_OUT_IMAGES, "identity", "clip"),
    ),
    Metric(
        *("identity_dino", "Identity (DINO)", "identity by DINO", False, "prompt"),
        "Similarity of the generated images to pictures of the subject that were not trained on, "
        "DINOv2.",
        *(_COSINE, Against.HELD_OUT_IMAGES, "identity", "dino"),
    ),
    Metric(
        *("identity_face", "Identity (face)", "face identity", False, "prompt"),
        "Similarity of the faces in generated images and in pictures that were not trained on.",
        *(_COSINE, Against.HELD_OUT_IMAGES, "identity", "face"),
    ),
    Metric(
        "training_likeness",
        "Like the training images",
        "likeness to the training images",
        True,
        "prompt",
        "Similarity of the generated images to the training images: what a LoRA gains here and not "
        "in identity it has copied.",
        _COSINE,
        Against.TRAINING_IMAGES,
        "identity",
        judged=False,
    ),
    Metric(
        *("prompt", "Prompt", "following the prompt", False, "prompt"),
        "Similarity of a generated image to its prompt, CLIP-T.",
        *(_COSINE, Against.PROMPT, "prompt_agreement", "clip"),
    ),
    Metric(
        *("diversity", "Diversity", "diversity", False, "prompt"),
        "Mean distance between the images of one prompt under several seeds.",
        *(_DISTANCE, Against.EACH_OTHER, "diversity"),
    ),
    Metric(
        *("vendi", "Vendi score", "diversity by Vendi", False, "prompt"),
        "How many different images the images of one prompt amount to.",
        *("Number of images", Against.EACH_OTHER, "vendi"),
        judged=False,
    ),
    Metric(
        *("preservation", "Preservation", "preserving the base model", True, "prompt"),
        "Distance to the base model's own image of a prompt without the trigger.",
        *(_DISTANCE, Against.BASE, "departure"),
    ),
    Metric(
        *("blind", "Chosen blind", "blind choice", False, "prompt"),
        "What a person chose on blind.html: 1 the value, −1 the base, 0 a tie.",
        "Mean of the choices",
    ),
)
"""In the order of the report; the first one that can be judged decides. A new one that is made of
images' embeddings is an entry here and, where its formula is new, a function in FORMULAS."""
BY_NAME = {metric.name: metric for metric in METRICS}


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
    """Images of a batch, at most; on a GPU part of what makes images repeat exactly; 1 to 1000."""


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
    """Return one line for each pair of settings that don't go together."""
    shared = set(metrics.prompts) & set(metrics.choice_prompts)
    if not shared:
        return []
    return [
        "metrics.choice_prompts must hold none of metrics.prompts, or a checkpoint is chosen and "
        f"judged on the same images, got {sorted(shared)[0]!r} in both"
    ]
