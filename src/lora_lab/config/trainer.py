"""Hardware and the loop: their settings and ranges."""

from dataclasses import dataclass

from lora_lab.config.rules import at_least, between, one_of

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true")
ACCELERATORS = ("auto", "cpu", "gpu", "mps")
ATTENTIONS = ("sdpa", "eager", "xformers")
MATMULS = ("highest", "high", "medium")
LORA_PRECISIONS = ("32", "bf16")


@dataclass
class TrainerConfig:
    """Hardware and the loop."""

    precision: str
    """Arithmetic of the base model: 32-true, bf16-mixed, 16-mixed (GPU) or bf16-true."""
    lora_precision: str
    """The LoRA's own weights: 32 (bits), or bf16 (only with precision bf16-true)."""
    matmul_precision: str
    """Products of 32-bit matrices on GPUs: highest, high (TF32) or medium; others leave it."""
    accelerator: str
    """Hardware: auto, cpu, gpu or mps."""
    devices: int
    """How many devices train together; 1 to 1024."""
    accumulate_grad_batches: int
    """Batches whose gradients are added up before a step; 1 to 100000."""
    gradient_clip_val: float
    """Largest norm of all gradients together; >= 0, 0 is off."""
    gradient_checkpointing: bool
    """Compute activations twice instead of keeping them: less memory, more time; true or false."""
    attention: str
    """Attention: sdpa (PyTorch's fused one), eager (plain), or xformers (GPU, to be installed)."""
    compile: bool
    """Compile the UNet by torch.compile: minutes at the start, faster steps; true or false."""
    max_skipped_steps: int
    """Steps with a gradient that isn't finite that are left out; >= 0; one more ends the run."""
    threads: int
    """CPU threads of PyTorch; 0 to 1024, 0 leaves PyTorch's own choice."""


MAX_THREADS = 1024
"""More end PyTorch with a crash."""
RULES = (
    one_of("precision", PRECISIONS),
    one_of("lora_precision", LORA_PRECISIONS),
    one_of("matmul_precision", MATMULS),
    one_of("accelerator", ACCELERATORS),
    between("devices", 1, 1024),
    between("accumulate_grad_batches", 1, 100_000),
    at_least("gradient_clip_val", 0),
    one_of("attention", ATTENTIONS),
    at_least("max_skipped_steps", 0),
    between("threads", 0, MAX_THREADS),
)


def problems(trainer: TrainerConfig) -> list[str]:
    """Return one line for each pair of settings that don't go together."""
    found = []
    if trainer.lora_precision == "bf16" and trainer.precision != "bf16-true":
        found.append(
            "trainer.lora_precision must be 32 with trainer.precision="
            f"{trainer.precision}, got 'bf16'; bf16 goes with trainer.precision=bf16-true only"
        )
    if trainer.precision == "16-mixed" and trainer.accelerator == "cpu":
        found.append(
            "trainer.precision=16-mixed needs a GPU, got trainer.accelerator=cpu; "
            "choose 32-true or bf16-mixed"
        )
    return found
