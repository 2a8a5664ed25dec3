"""Regularisation images: shown as often as the training images, whatever their number."""

from dataclasses import replace

from lora_lab.data.examples import Example


def match_repeats(found: list[Example], showings: int) -> list[Example]:
    """Repeats that sum up to at least the showings of the training images, as kohya counts them.

    Images are taken in order with their own repeats until the sum is reached; what is left is not
    used. While the sum is too small, each image in turn is shown once more.

    Args:
        found: The regularisation images with their folders' repeats.
        showings: Training images times their repeats.
    """
    used: list[Example] = []
    total = 0
    for example in found:
        if total >= showings:
            break
        used.append(example)
        total += example.repeats
    lacking = max(0, showings - total)
    each, more = divmod(lacking, len(used)) if used else (0, 0)
    return [
        replace(example, repeats=example.repeats + each + (index < more))
        for index, example in enumerate(used)
    ]
