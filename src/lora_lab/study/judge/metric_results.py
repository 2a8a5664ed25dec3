"""What is measured of a run's LoRA, and what can be said of one value in one metric."""

import math
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What can be said of a run."""

    BASE = "base"
    BETTER = "better"
    WORSE = "worse"
    MIXED = "better and worse"
    """Better in one metric and worse in another."""
    AS_GOOD = "as good"
    """Within a stated margin of the base, shown by two one-sided tests."""
    NONE_SHOWN = "no difference seen"
    NOT_RANKED = "not ranked"


@dataclass(frozen=True)
class Metric:
    """One metric, as the report speaks of it."""

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
    judged: bool = True
    """Whether a verdict is given; False for a second figure of what another metric judges."""
    is_loss: bool = False
    """Whether it is another quantity as soon as images, latents or checkpoint differ."""


METRICS = (
    Metric(
        *("held_out_loss", "Held-out loss", "held-out loss", True, "image"),
        "Loss on images that were not trained on, at fixed timesteps and under fixed noise.",
        is_loss=True,
    ),
    Metric(
        *("memorisation", "Memorisation", "memorisation", True, "image"),
        "How well the gain over the bare base tells training images from held-out ones (area under "
        "the curve): 0.5 tells nothing, 1 every image.",
        judged=False,
        is_loss=True,
    ),
    Metric(
        *("identity_clip", "Identity (CLIP)", "identity", False, "prompt"),
        "Similarity of the generated images to the training images, CLIP-I.",
    ),
    Metric(
        *("identity_dino", "Identity (DINO)", "identity by DINO", False, "prompt"),
        "Similarity of the generated images to the training images, DINOv2.",
    ),
    Metric(
        *("identity_face", "Identity (face)", "face identity", False, "prompt"),
        "Similarity of the faces in generated and training images.",
    ),
    Metric(
        *("prompt", "Prompt", "following the prompt", False, "prompt"),
        "Similarity of a generated image to its prompt, CLIP-T.",
    ),
    Metric(
        *("diversity", "Diversity", "diversity", False, "prompt"),
        "Mean distance between the images of one prompt under several seeds.",
    ),
    Metric(
        *("vendi", "Vendi score", "diversity by Vendi", False, "prompt"),
        "How many different images the images of one prompt amount to.",
        judged=False,
    ),
    Metric(
        *("preservation", "Preservation", "preserving the base model", True, "prompt"),
        "Distance to the base model's own image of a prompt without the trigger.",
    ),
    Metric(
        *("blind", "Chosen blind", "blind choice", False, "prompt"),
        "What a person chose on blind.html: 1 the value, −1 the base, 0 a tie.",
    ),
)
BY_NAME = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True)
class MetricResult:
    """One value in one metric. The interval is corrected for all values and metrics."""

    value: str
    metric: str
    """Name of one of METRICS."""
    verdict: Kind
    mean: float = math.nan
    """Mean of the value over its seeds and clusters."""
    base_mean: float = math.nan
    """The same of the base."""
    effect: float = math.nan
    """Value - base, paired by seed and by (prompt, image seed) or (image, timestep)."""
    low: float = math.nan
    """Lower end of the interval of the effect; it excludes 0 where a difference is shown."""
    high: float = math.nan
    """Its upper end."""
    p: float = math.nan
    """Of no difference, for this value and metric by themselves; not corrected."""
    level: float = math.nan
    """Error rate that the metric's family was tested at."""
    detectable: float = math.nan
    """Smallest true effect that the study shows with probability 0.8."""
    seeds_needed: int = 0
    """Seeds that would show a difference of 1 % of the base's mean; 0: not known or too many."""
    seeds: int = 0
    """Seeds that the effect was measured under, in value and base."""
    clusters: int = 0
    """Prompts or images that it was measured on."""
    by_seed: tuple[float, ...] = ()
    """The effect under each seed; empty where value and base share none."""
    reason: str = ""
    """Why no verdict was possible; empty when one was."""
    remark: str = ""
    """What else is to be known: seeds left out, identical runs, the price of one seed."""

    @property
    def relative(self) -> float:
        """The effect as a share of the base's mean."""
        return self.share(self.effect)

    def share(self, figure: float) -> float:
        """A figure as a share of the base's mean."""
        return figure / abs(self.base_mean) if self.base_mean else math.nan


@dataclass(frozen=True)
class Trend:
    """Whether a metric rises or falls with the values, base among them."""

    metric: str
    slope: float
    """Change of the metric a step of the scale."""
    low: float
    """Lower end of the interval of the slope, corrected as those of the values are."""
    high: float
    by_factor: bool
    """Whether a step of the scale doubles the value; else it adds 1 to it."""
    shown: bool
    """Whether the trend is one under the error rate of the report."""
    seeds: int


def overall(results: tuple[MetricResult, ...]) -> Kind:
    """One word for all metrics of a value.

    "As good" is said of the first metric alone; any difference in another one goes before it.
    """
    judged = [result for result in results if BY_NAME[result.metric].judged]
    found = [result.verdict for result in judged if result.verdict is not Kind.NOT_RANKED]
    if {Kind.BETTER, Kind.WORSE} <= set(found):
        return Kind.MIXED
    for kind in (Kind.BETTER, Kind.WORSE):
        if kind in found:
            return kind
    return found[0] if found else Kind.NOT_RANKED
