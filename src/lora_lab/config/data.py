"""Images and captions: their settings and ranges."""

import re
from dataclasses import dataclass

from lora_lab.config.rules import Rule, at_least, or_null, text


@dataclass
class DataConfig:
    """Images and captions, in kohya's folder layout."""

    dir: str
    """Folder with train/<repeats>_<trigger> <class>/ images and captions, or embedded:person."""
    held_out_dir: str | None
    """Folder with held-out images in the same layout; null: <dir>/held_out if there is one."""
    resolution: int
    """Side of the training images in pixels; >= 8, a multiple of the VAE's factor."""
    repeats: int | None
    """How often an epoch shows each image; >= 1; null: the number in the folder's name."""
    batch_size: int
    """Images in a training step; >= 1."""
    caption_extension: str
    """File extension of the captions, with its dot, such as .txt."""
    flip: bool
    """Mirror images at random, half of the time; true or false."""
    shuffle_caption: bool
    """Shuffle the comma-separated parts of a caption each time; true or false."""
    keep_tokens: int
    """How many parts at the start of a caption stay in place when it is shuffled; >= 0."""
    cache_dir: str | None
    """Folder that keeps latents for later runs; null: latents stay in memory."""


RULES = (
    text("dir"),
    or_null(text("held_out_dir")),
    at_least("resolution", 8),
    or_null(at_least("repeats", 1)),
    at_least("batch_size", 1),
    Rule(
        "caption_extension",
        "a dot and letters or digits, such as .txt",
        lambda value: re.fullmatch(r"\.[A-Za-z0-9]+", value) is not None,
    ),
    at_least("keep_tokens", 0),
    or_null(text("cache_dir")),
)
