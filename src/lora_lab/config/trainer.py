"""Hardware and the loop: their settings and ranges."""

from dataclasses import dataclass

from lora_lab.config.rules import at_least, one_of

PRECISIONS = ("32-true", "bf16-mixed")
ACCELERATORS = ("auto", "cpu", "gpu", "mps")


@dataclass
class TrainerConfig:
    """Hardware and the loop."""

    precision: str
    """Arithmetic of the base model: 32-true or bf16-mixed; LoRA weights are always 32 bits."""
    accelerator: str
    """Hardware: auto, cpu, gpu or mps."""
    devices: int
    """How many devices train together; >= 1."""
    accumulate_grad_batches: int
    """Batches whose gradients are added up before a step; >= 1."""
    gradient_clip_val: float
    """Largest norm of all gradients together; >= 0, 0 is off."""
    threads: int
    """CPU threads of PyTorch; >= 0, 0 leaves PyTorch's own choice."""


RULES = (
    one_of("precision", PRECISIONS),
    one_of("accelerator", ACCELERATORS),
    at_least("devices", 1),
    at_least("accumulate_grad_batches", 1),
    at_least("gradient_clip_val", 0),
    at_least("threads", 0),
)
