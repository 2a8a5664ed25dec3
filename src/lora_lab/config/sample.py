"""The settings of sampling: types, and below each field the line that ``--help`` prints."""

from dataclasses import dataclass


@dataclass
class PromptsConfig:
    """Prompts in A1111's syntax; {subject} stands for the trained subject."""

    simple: str
    """The simple prompt, drawn at the fixed seed."""
    complex: str
    """The complex prompt, drawn at the fixed seed."""
    random: list[str]
    """The random prompts, drawn at the random seeds."""


@dataclass
class SamplingConfig:
    """How images are drawn from a LoRA."""

    checkpoints: list[str]
    """Checkpoints that draw: files, folders, embedded:<name>; empty: the one trained on."""
    prompts: PromptsConfig
    """Prompts in A1111's syntax; {subject} stands for the trained subject."""
    subject: str | None
    """Words put in place of {subject}; null: "<trigger> <class>" of the LoRA's data folder."""
    negative: str
    """Negative prompt; may be empty."""
    seed: int
    """The fixed seed of the simple and the complex prompt; 0 to 2^32 - 1."""
    random_seeds: list[int]
    """One seed for each random prompt; 0 to 2^32 - 1."""
    sampler: str
    """Sampler by A1111's name: Euler a, Euler, DDIM, DPM++ 2M Karras, DPM++ SDE Karras, UniPC."""
    steps: int
    """Sampling steps; >= 1."""
    guidance: float
    """Classifier-free guidance scale (CFG); >= 1, 1 is off."""
    width: int
    """Width of the images in pixels; >= 8, a multiple of 8."""
    height: int
    """Height of the images in pixels; >= 8, a multiple of 8."""
    batch_size: int
    """Images drawn at once; part of what makes images repeat exactly; >= 1."""
    lora_weight: float
    """Weight at which the LoRA is applied; 1 is as trained."""
    clip_skip: int
    """Which hidden state of the text encoder is used, counted from its end; >= 1, 1 is the last."""
    allow_pickle: bool
    """Also read pickle checkpoints (.ckpt, .pt, .bin), with weights_only=True; true or false."""


@dataclass
class SampleConfig:
    """One call of sample.py: the grids of a run or sweep, or images from one LoRA file."""

    run: str | None
    """Run or sweep folder whose grids are drawn; either this or lora."""
    lora: str | None
    """LoRA file (kohya's format) to draw images from; either this or run."""
    prompt: str | None
    """Prompt of the images drawn with lora, in A1111's syntax; null: the simple prompt."""
    count: int
    """How many images are drawn with lora, at seeds sampling.seed, + 1, ...; >= 1."""
    output: str
    """Folder for the images drawn with lora."""
    threads: int
    """CPU threads of PyTorch; >= 0, 0 leaves PyTorch's own choice."""
    debug: bool
    """Show tracebacks of errors; true or false."""
    sampling: SamplingConfig
    """How images are drawn from a LoRA."""
