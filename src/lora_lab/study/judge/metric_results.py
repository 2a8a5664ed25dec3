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
    NONE_SHOWN = "no difference shown"
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
    """What the bootstrap draws: image or prompt."""
    meaning: str
    """One sentence on what it measures."""
    judged: bool = True
    """Whether a verdict is given; False for a second figure of what another metric judges."""


METRICS = (
    Metric(
        *("held_out_loss", "Held-out loss", "held-out loss", True, "image"),
        "Loss on images that were not trained on, at fixed timesteps and under fixed noise.",
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
)
BY_NAME = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True)
class MetricResult:
    """One value in one metric. Intervals are corrected for all values of the study (Holm)."""

    value: str
    run: str
    """Name of the run in sweep.json."""
    metric: str
    """Name of one of METRICS."""
    verdict: Kind
    mean: float = math.nan
    """Mean over the clusters of the run."""
    base_mean: float = math.nan
    """The same of the base, mean over its seeds."""
    difference: float = math.nan
    """Value - base, paired by (prompt, image seed) or by (image, timestep)."""
    low: float = math.nan
    """Lower end of the corrected 95 % interval of the difference."""
    high: float = math.nan
    """Its upper end."""
    p: float = math.nan
    """Of no difference, by the clustered bootstrap."""
    p_holm: float = math.nan
    """The same corrected for the number of values."""
    floor: float = math.nan
    """Standard deviation between the base's seeds."""
    threshold: float = math.nan
    """What the difference must exceed on account of the floor."""
    mdd: float = math.nan
    """Smallest true difference that the study shows with probability 0.8."""
    clusters: int = 0
    """Prompts or images that the difference was measured on."""
    seeds: int = 0
    """Base runs that the floor was measured on."""
    reason: str = ""
    """Why no verdict was possible; empty when one was."""

    @property
    def relative(self) -> float:
        """The difference as a share of the base's mean."""
        return self.difference / self.base_mean if self.base_mean else math.nan


def overall(results: tuple[MetricResult, ...]) -> Kind:
    """One word for all metrics of a value."""
    found = {result.verdict for result in results if BY_NAME[result.metric].judged}
    if {Kind.BETTER, Kind.WORSE} <= found:
        return Kind.MIXED
    for kind in (Kind.BETTER, Kind.WORSE, Kind.NONE_SHOWN):
        if kind in found:
            return kind
    return Kind.NOT_RANKED
