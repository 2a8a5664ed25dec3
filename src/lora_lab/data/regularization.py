"""Regularisation images: as many samples as of the training images."""

from dataclasses import replace

from lora_lab.data.examples import Example


def match_repeats(found: list[Example], samples: int) -> list[Example]:
    """Regularisation images with repeats that give as many samples as the training images.

    As kohya counts: images are taken in order with their own repeats until there are enough
    samples; the rest is not used. If all of them are too few, each in turn is repeated once more.

    Args:
        found: The regularisation images with their folders' repeats.
        samples: Training images times their repeats.
    """
    used: list[Example] = []
    total = 0
    for example in found:
        if total >= samples:
            break
        used.append(example)
        total += example.repeats
    lacking = max(0, samples - total)
    each, more = divmod(lacking, len(used)) if used else (0, 0)
    return [
        replace(example, repeats=example.repeats + each + (index < more))
        for index, example in enumerate(used)
    ]
