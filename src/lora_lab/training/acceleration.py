"""How the base model computes during training: number format, attention, kept activations.

The base is shared by the runs of a sweep, so each change is undone when the run is over.
"""

import contextlib
import importlib.util
from collections.abc import Iterator

import lightning.pytorch as pl
import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import nn

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.config import TrainerConfig
from lora_lab.errors import ConfigError


class Acceleration(pl.Callback):
    """Keeps the base as the trainer's settings want it while a training lasts.

    Args:
        base: With or without a LoRA in it.
        config: Precision, attention, gradient_checkpointing and compile are read.
    """

    def __init__(self, base: BaseModel, config: TrainerConfig) -> None:
        self.base = base
        self.config = config
        self.undo = contextlib.ExitStack()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Training is about to begin; what gets a gradient is settled."""
        self.undo.enter_context(accelerated(self.base, self.config))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Training has ended."""
        self.undo.close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Training has ended by an error, after which Lightning calls no teardown."""
        self.undo.close()


@contextlib.contextmanager
def accelerated(base: BaseModel, config: TrainerConfig) -> Iterator[None]:
    """The base as the trainer's settings want it, for the time of the block.

    Args:
        base: With or without a LoRA in it; tensors that are trained keep their format.
        config: Precision, attention, gradient_checkpointing and compile are read.
    """
    with contextlib.ExitStack() as undo:
        if config.precision == "bf16-true":
            undo.enter_context(_in_bf16(base.unet))
            undo.enter_context(_in_bf16(base.text_encoder))
        if config.attention != "sdpa":
            undo.enter_context(_attention(base, config.attention))
        if config.gradient_checkpointing:
            base.unet.enable_gradient_checkpointing()
            undo.callback(base.unet.disable_gradient_checkpointing)
            base.text_encoder.gradient_checkpointing_enable({"use_reentrant": False})
            undo.callback(base.text_encoder.gradient_checkpointing_disable)
        if config.compile:
            base.unet.compile()
            undo.callback(setattr, base.unet, "_compiled_call_impl", None)
        yield


@contextlib.contextmanager
def _in_bf16(model: nn.Module) -> Iterator[None]:
    """All frozen floating-point tensors of a model in bf16; the exact ones come back afterwards."""
    frozen = [tensor for tensor in model.parameters() if not tensor.requires_grad]
    kept = [tensor.data for tensor in frozen]
    for tensor in frozen:
        tensor.data = tensor.data.bfloat16()
    try:
        yield
    finally:
        for tensor, exact in zip(frozen, kept, strict=True):
            tensor.data = exact


@contextlib.contextmanager
def _attention(base: BaseModel, name: str) -> Iterator[None]:
    """Another attention than PyTorch's fused one."""
    before, kind = base.unet.attn_processors, base.text_encoder.config._attn_implementation
    if name == "xformers":
        base.unet.enable_xformers_memory_efficient_attention()
    else:
        base.unet.set_attn_processor(AttnProcessor())
        base.text_encoder.set_attn_implementation("eager")
    try:
        yield
    finally:
        base.unet.set_attn_processor(before)
        base.text_encoder.set_attn_implementation(kind)


def check_acceleration(config: TrainerConfig) -> None:
    """Hold the settings against this machine.

    Raises:
        ConfigError: Xformers isn't installed, or there is no GPU for it.
    """
    if config.attention != "xformers":
        return
    if importlib.util.find_spec("xformers") is None:
        raise ConfigError(
            "trainer.attention=xformers needs the package xformers: pip install xformers, "
            "or choose trainer.attention=sdpa, which is as fast"
        )
    if not torch.cuda.is_available():
        raise ConfigError("trainer.attention=xformers needs a GPU: choose trainer.attention=sdpa")
