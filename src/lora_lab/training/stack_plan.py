"""Which runs of a sweep can be trained at the same time, and in what stacks."""

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from lora_lab.config import TrainConfig

LARGEST = 8
"""Runs in a stack at most, unless more are asked for: throughput hardly rises beyond."""
SHAPES = (
    *("dir", "reg_dir", "regularization", "resolution", "enable_bucket", "bucket_reso_steps"),
    *("min_bucket_reso", "max_bucket_reso", "bucket_no_upscale", "repeats", "batch_size"),
    *("weighted_captions", "max_token_length"),
)
"""Settings of `data` that decide the shapes and the number of the batches."""


def why_alone(config: TrainConfig) -> str | None:
    """Return the setting with which a run can't share its passes; None when it can."""
    network, trainer = config.network, config.trainer
    if network.name != "lora":
        return f"network={network.name}"
    reasons = {
        "network.dora=true": network.dora,
        f"trainer.devices={trainer.devices}": trainer.devices > 1,
        "trainer.gradient_checkpointing=true": trainer.gradient_checkpointing,
        "trainer.compile=true": trainer.compile,
        "callbacks.samples=true": config.callbacks.samples,
        "data_report=true": config.data_report,
    }
    return next((setting for setting, holds in reasons.items() if holds), None)


def settings_of_stack(config: TrainConfig) -> dict[str, Any]:
    """Return the settings that the runs of a stack have in common, by key."""
    data = {f"data.{key}": getattr(config.data, key) for key in SHAPES}
    others = {
        f"{part}.{key}": value
        for part, section in (
            ("model", dataclasses.asdict(config.model)),
            ("trainer", dataclasses.asdict(config.trainer)),
        )
        for key, value in section.items()
        if key != "clip_skip"
    }
    return {**others, **data, "epochs": config.epochs}


def make_stacks(
    configs: Sequence[TrainConfig], most: int | None, workers: int
) -> tuple[list[list[int]], list[str]]:
    """Distribute runs over stacks, and say in one line each why some can't be together.

    Args:
        configs: Settings of the runs.
        most: Runs in a stack at most; None leaves it to the workers, up to ``LARGEST``.
        workers: How many stacks can be trained beside each other.

    Returns:
        The runs' numbers, stack by stack, and what to tell.
    """
    alone: dict[str, list[int]] = {}
    groups: dict[str, list[int]] = {}
    for number, config in enumerate(configs):
        reason = why_alone(config)
        if reason is None:
            groups.setdefault(repr(settings_of_stack(config)), []).append(number)
        else:
            alone.setdefault(reason, []).append(number)
    lines = [f"{reason} can't be stacked: trained one by one" for reason in alone]
    if len(groups) > 1:
        lines.append(f"stacks are kept apart by {_differing(configs, groups)}")
    stacks = [[number] for numbers in alone.values() for number in numbers]
    total = sum(len(numbers) for numbers in groups.values())
    for numbers in groups.values():
        share = max(1, round(workers * len(numbers) / total))
        count = min(len(numbers), max(share, -(-len(numbers) // (most or LARGEST))))
        stacks += even(_by_rank(numbers, configs), count)
    return stacks, lines


def stacks_told(sizes: Sequence[int], at_a_time: int | None) -> str:
    """One line on how many stacks there are, and how many are trained beside each other.

    Args:
        sizes: Runs of each stack.
        at_a_time: Stacks that are trained beside each other; None: a cluster decides.
    """
    runs = f"{sum(sizes)} run{'s' if sum(sizes) > 1 else ''}"
    if len(sizes) == 1:
        return f"{runs} in one stack"
    alike = len(set(sizes)) == 1
    each = f"{sizes[0]}" if alike else f"{', '.join(map(str, sizes[:-1]))} and {sizes[-1]} runs"
    count = "as many" if at_a_time is None else f"{min(at_a_time, len(sizes))}"
    stacks = "stacks" if count != "1" else "stack"
    room = " as there is room for" if at_a_time is None else ""
    return f"{runs} in {len(sizes)} stacks of {each}, {count} {stacks} at a time{room}"


def _by_rank(numbers: list[int], configs: Sequence[TrainConfig]) -> list[int]:
    """Runs of like ranks beside each other: a stack pads all to its largest."""
    return sorted(numbers, key=lambda number: (configs[number].network.dim, number))


def even(numbers: list[int], count: int) -> list[list[int]]:
    """Cut a list into so many parts of lengths that differ by at most 1."""
    cuts = [len(numbers) * part // count for part in range(count + 1)]
    return [numbers[start:end] for start, end in pairwise(cuts)]


def _differing(configs: Sequence[TrainConfig], groups: dict[str, list[int]]) -> str:
    """The keys in which the groups differ."""
    firsts = [settings_of_stack(configs[numbers[0]]) for numbers in groups.values()]
    return ", ".join(key for key in firsts[0] if len({repr(one[key]) for one in firsts}) > 1)
