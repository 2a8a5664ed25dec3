"""Images and captions: their settings and ranges."""

import re
from dataclasses import dataclass

from lora_lab.config.rules import Rule, at_least, between, one_of, or_null, shown, text

LATENTS = ("mean", "sample")
PRECISIONS = ("float32", "bfloat16", "float16")
RESIZE_FILTERS = ("area", "lanczos")
CAPTION_LINES = ("all", "first")
TOKEN_LENGTHS = (75, 150, 225)


@dataclass
class DataConfig:
    """Images and captions, in kohya's folder layout."""

    dir: str
    """Folder with train/<repeats>_<trigger> <class>/ images and captions, or embedded:person."""
    held_out_dir: str | None
    """Folder with held-out images in the same layout; null: <dir>/held_out if there is one."""
    regularization: bool
    """Train on regularisation images too, as many as training images; true or false."""
    reg_dir: str | None
    """Folder with <repeats>_<class>/ regularisation images; null: <dir>/reg if there is one."""
    prior_loss_weight: float
    """What the loss of a regularisation image is multiplied by; >= 0."""
    masked_loss: bool
    """Weight the loss by image.mask.png, white counts, black doesn't; true or false."""
    resolution: int
    """Side of the training images in pixels; 8 to 4096, a multiple of the VAE's factor."""
    enable_bucket: bool
    """Keep the images' shapes as near as buckets allow; false crops all to a square."""
    bucket_reso_steps: int | None
    """Bucket sides are multiples of it in pixels; 8 to 4096; null: what the UNet halves to 1."""
    min_bucket_reso: int | None
    """Shortest side of a bucket in pixels, rounded down to the step; 8 to 4096; null: half."""
    max_bucket_reso: int | None
    """Longest side of a bucket in pixels, rounded up to the step; 8 to 8192; null: twice."""
    bucket_no_upscale: bool
    """Never enlarge an image: a small one gets a small bucket; true or false."""
    resize_filter: str
    """How images are made smaller: area (mean of the pixels, as kohya) or lanczos (sharper)."""
    random_crop: bool
    """Crop what doesn't fit its bucket at random places, not at the centre; true or false."""
    color_aug: bool
    """Vary hue and brightness a little at random; true or false."""
    variants: int
    """How many random crops and colours of an image are made and cached; 1 to 1000."""
    repeats: int | None
    """How often an epoch shows each image; 1 to 10000; null: the number in the folder's name."""
    batch_size: int
    """Images in a training step; 1 to 10000."""
    caption_lines: str
    """Lines of a caption file that are read: all, joined by spaces, or the first, as kohya."""
    caption_extension: str
    """File extension of the captions, with its dot, such as .txt."""
    trigger: str | None
    """Text put before each caption that doesn't begin with it; null: none."""
    flip: bool
    """Mirror images at random, half of the time; true or false."""
    shuffle_caption: bool
    """Shuffle the comma-separated parts of a caption each time; true or false."""
    keep_tokens: int
    """How many parts at the start of a caption stay as they are when others change; >= 0."""
    caption_dropout_rate: float
    """Share of the training samples with an empty caption; >= 0, <= 1."""
    caption_dropout_every_n_epochs: int
    """Every n-th epoch trains with empty captions alone; >= 0, 0 is off."""
    caption_tag_dropout_rate: float
    """Share of a caption's parts, but the kept ones, left out each time; >= 0, <= 1."""
    weighted_captions: bool
    """Read (x:1.3) and [x] in captions as weights, as the web UI does; true or false."""
    restore_mean: bool
    """Bring the mean of weighted captions back, as the web UI does and kohya no more does."""
    max_token_length: int
    """Tokens of a caption that are read, in chunks of 75; 75, 150 or 225."""
    latents: str
    """What the VAE's distribution gives: its mean, or a sample drawn anew each time (sample)."""
    vae_precision: str
    """Number format in which the VAE encodes: float32, bfloat16 or float16."""
    cache_dir: str | None
    """Folder that keeps latents for later runs; null: latents stay in memory."""


def _share(key: str) -> Rule:
    return Rule(key, ">= 0 and <= 1", lambda value: 0 <= value <= 1)


MAX_SIDE = 4096
"""Pixels; eight times what the UNet was trained on."""
MAX_REPEATS = 10_000
"""Of an image in an epoch; `epochs` says how long a run is."""
RULES = (
    text("dir"),
    or_null(text("held_out_dir")),
    or_null(text("reg_dir")),
    at_least("prior_loss_weight", 0),
    between("resolution", 8, MAX_SIDE),
    or_null(between("bucket_reso_steps", 8, MAX_SIDE)),
    or_null(between("min_bucket_reso", 8, MAX_SIDE)),
    or_null(between("max_bucket_reso", 8, 2 * MAX_SIDE)),
    one_of("resize_filter", RESIZE_FILTERS),
    between("variants", 1, 1000),
    or_null(between("repeats", 1, MAX_REPEATS)),
    between("batch_size", 1, 10_000),
    one_of("caption_lines", CAPTION_LINES),
    Rule(
        "caption_extension",
        "a dot and letters or digits, such as .txt",
        lambda value: re.fullmatch(r"\.[A-Za-z0-9]+", value) is not None,
    ),
    or_null(text("trigger")),
    at_least("keep_tokens", 0),
    _share("caption_dropout_rate"),
    at_least("caption_dropout_every_n_epochs", 0),
    _share("caption_tag_dropout_rate"),
    Rule("max_token_length", "one of 75, 150, 225", lambda value: value in TOKEN_LENGTHS),
    one_of("latents", LATENTS),
    one_of("vae_precision", PRECISIONS),
    or_null(text("cache_dir")),
)


def problems(data: DataConfig) -> list[str]:
    """Return one line for each combination that makes no sense."""
    found = []
    least, most = data.min_bucket_reso, data.max_bucket_reso
    if data.enable_bucket and least is not None and least > data.resolution:
        found.append(
            f"data.min_bucket_reso must be <= data.resolution ({data.resolution}), got {least}"
        )
    if data.enable_bucket and most is not None and most < data.resolution:
        found.append(
            f"data.max_bucket_reso must be >= data.resolution ({data.resolution}), got {most}"
        )
    if data.variants > 1 and not (data.random_crop or data.color_aug):
        found.append(
            "data.variants must be 1 unless data.random_crop or data.color_aug is true, "
            f"got {shown(data.variants)}"
        )
    return found
