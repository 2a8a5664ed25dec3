"""What the report says about its figures and about its own limits."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from lora_lab.clock import duration
from lora_lab.config.metrics import BY_NAME
from lora_lab.study.judge.comparable import changes_training_loss
from lora_lab.study.judge.metric_results import UNJUDGED, Verdict
from lora_lab.study.judge.run_measures import Measures
from lora_lab.study.judge.verdict import Judged, Study
from lora_lab.study.read.held_out_file import HELD_OUT
from lora_lab.study.report.spelling import listed, percent, plain, signed, size

MAX_IN_ALT = 12
"""So many runs are read out in a figure's description; the table has all."""


@dataclass(frozen=True)
class FigureText:
    """The words around one figure."""

    short: str
    """In the navigation."""
    title: str
    lede: str
    caption: str
    """How to read it."""


FIGURE_TEXTS = {
    "effects": FigureText(
        "Effects",
        "What each value does",
        "The difference of each value to the base, one panel per metric, with its interval. Small "
        "dots are single seeds, the grey band is the margin within which a value is as good.",
        "Red line: the base. A triangle up is better, down is worse: its interval doesn't touch "
        "the line. A square is as good, a ring undecided.",
    ),
    "pareto": FigureText(
        "Cost and gain",
        "What a value gains for what it costs",
        "Each value's mean in a metric against the size of its file, or its time where the files "
        "are alike.",
        "Red diamond: the base. The broken line joins the values that no other beats in both. "
        "The mark tells whether a difference is real, as in the figure above.",
    ),
    "dlr": FigureText(
        "DLR",
        "Learning rate at work",
        "DLR is d · lr as used in each step: what an adaptive optimizer really trains with. "
        "A logarithmic axis shows how it grows.",
        "Red: the base, with its seeds as a band. d is the optimizer's own estimate; the schedule "
        "brings d · lr down to zero at the end, so values are compared by d.",
    ),
    "loss": FigureText(
        "Loss",
        "Training loss",
        "The mean loss of each epoch. It goes up and down with the noise that was drawn, so two "
        "lines of one seed move together and a single line says little.",
        "Red: the base. The band spans its seeds: another seed draws other noise.",
    ),
    "loss_paired": FigureText(
        "Paired loss",
        "Training loss against the base",
        "Value − base at the same step under the same noise and timesteps, smoothed: the mean over "
        "the seeds of a value, with the band that they span. Below zero the value learns its "
        "training images better than the base does.",
        "Red line: the base itself. Thin red lines and the red band (two standard deviations to "
        "each side), where they fit: another seed of the base, which also draws other noise. "
        "Training loss says nothing of pictures that were not trained on: see the held-out loss.",
    ),
    "val_loss": FigureText(
        "Held-out loss",
        "Loss on images that were not trained on",
        "At fixed timesteps and under fixed noise. Low timesteps are about detail, high ones "
        "about the layout of the picture.",
        "First panel: difference to the base at the end, a dot a value with its interval; the red "
        "line is the base. Then the mean and each timestep over the training; before the end fewer "
        "images are measured, which tell how far a save is from the last. The gap is to as many "
        "training images: where it is larger, the LoRA memorises them.",
    ),
    "cost": FigureText(
        "Cost",
        "Time, memory and file size",
        "What each run took on the machine that it ran on.",
        "Time is all of a run without its sampling; runs that were trained at once have a share of "
        "their stack's. Other work on the machine shows in it: the base's seeds tell how much.",
    ),
}


def shown_figures(study: Study) -> tuple[str, ...]:
    """The names of the figures of a report; other logs never hold a held-out loss."""
    held_out = any(one.run.metrics.measured(HELD_OUT) for one in study.judged)
    absent = {"val_loss"} if study.sweep.command and not held_out else set()
    if not any(math.isfinite(r.effect) for one in study.values for r in one.results):
        absent |= {"effects", "pareto"}
    return tuple(name for name in FIGURE_TEXTS if name not in absent)


def alt_text(study: Study, name: str) -> str:
    """A description of a figure for those who don't see it: what it is, and its main figures."""
    text = FIGURE_TEXTS[name]
    figures = [f"{one.label} {spoken}" for one in study.shown if (spoken := _ALT[name][1](one))]
    if not figures:
        return f"{text.title}: nothing was measured."
    more = f"; and {len(figures) - MAX_IN_ALT} more" if len(figures) > MAX_IN_ALT else ""
    return f"{text.title}. {_ALT[name][0]}: {'; '.join(figures[:MAX_IN_ALT])}{more}."


def _figure(
    take: Callable[[Measures], float], say: Callable[[float], str]
) -> Callable[[Judged], str]:
    def spoken(one: Judged) -> str:
        value = take(one.measures)
        return say(value) if math.isfinite(value) else ""

    return spoken


def _paired(one: Judged) -> str:
    return signed(one.paired.tail) if one.paired is not None else ""


def _effects(one: Judged) -> str:
    if one.run.is_base:
        return ""
    told = [
        f"{BY_NAME[result.metric].title} {percent(result.relative)}, {result.verdict.value}"
        for result in one.results
        if BY_NAME[result.metric].judged and math.isfinite(result.relative)
    ]
    return "; ".join(told[:2])


def _costs(one: Judged) -> str:
    figures = one.measures
    if not one.run.complete:
        return ""
    return f"{duration(figures.seconds)}, {size(figures.lora_bytes)}"


_ALT: dict[str, tuple[str, Callable[[Judged], str]]] = {
    "dlr": ("Highest rate of the UNet", _figure(lambda m: m.peak_dlr_unet, plain)),
    "loss": ("Mean loss of the last fifth", _figure(lambda m: m.tail_loss, plain)),
    "loss_paired": ("Mean difference to the base in the last fifth, first seed", _paired),
    "val_loss": ("Held-out loss at the end", _figure(lambda m: m.held_out, plain)),
    "cost": ("Time and file size", _costs),
    "effects": ("Difference to the base", _effects),
    "pareto": ("Time and file size", _costs),
}


def limits(study: Study) -> list[str]:
    """What a reader must not take from this report."""
    found = [
        "Which pictures look better. Held-out loss is a measure of how well the images of one "
        "person are predicted, not of likeness, taste or variety: look at the grids.",
        "Whether the same holds for other images, another base checkpoint or another machine.",
    ]
    ended = [one for one in study.values if one.verdict is Verdict.ENDED_EARLY]
    if ended:
        found.append(
            f"How {listed([one.label for one in ended], MAX_IN_ALT)} would have done at the end: "
            f"{'it was' if len(ended) == 1 else 'they were'} worse at a third of the steps, and "
            "went no further (study.early_end)."
        )
    ranked = [one for one in study.values if one.verdict not in (Verdict.BASE, *UNJUDGED)]
    if ranked:
        found.append(
            "That values are equal. “No difference seen” means that a difference, if there is "
            "one, is smaller than this study could see."
        )
        results = [result for one in ranked if (result := one.first_result)]
        if any(result.seeds == 1 for result in results):
            found.append("How a value does under other seeds where it was trained under one.")
    if study.stacks_told:
        found.append(study.stacks_told)
    if changes_training_loss(study.parameters):
        found.append(
            f"Anything from training losses side by side: {study.sweep.parameter} changes what "
            "the training loss is. The held-out loss is measured alike for all."
        )
    if any(one.paired is not None and one.paired.unit == "epoch" for one in study.values):
        found.append(
            "What differs step by step, where values take other steps: their training losses are "
            "paired by epoch, and not all noise is shared."
        )
    return found
