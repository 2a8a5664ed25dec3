"""Precision, memory and accumulation: the gradient stays what it is, and the base is given back."""

import importlib.util
from dataclasses import replace
from typing import Any

import pytest
import torch

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.clock import Clock
from lora_lab.config import TrainConfig
from lora_lab.data.batch import Batch
from lora_lab.data.inputs import Inputs, SharedInputs
from lora_lab.data.loader import PairedLoader
from lora_lab.errors import ConfigError
from lora_lab.network import inject_lora
from lora_lab.training.acceleration import accelerated, check_acceleration
from lora_lab.training.module import LoRAModule
from lora_lab.training.noising import training_alphas
from lora_lab.training.trainer import set_hardware
from train_setup import TRAINER, train_config


class Step:
    """A LoRA on the tiny base, and the gradient of its batches."""

    def __init__(self, config: TrainConfig) -> None:
        inputs = Inputs.load(config, SharedInputs(), Clock())
        self.config = config
        self.base: BaseModel = inputs.base
        self.loader = PairedLoader(
            inputs.items,
            self.base.tokenizer,
            config.data,
            config.objective,
            config.seed,
            1000,
            config.trainer.accumulate_grad_batches,
        )
        self.network = inject_lora(self.base, config.network, config.seed)
        self.module = LoRAModule(self.base, self.network, config, 6)
        self.module.configure_optimizers()

    def gradient(self, batches: list[Batch]) -> dict[str, torch.Tensor]:
        """Of one optimizer step, summed and divided as Lightning does."""
        self.module.zero_grad()
        with accelerated(self.base, self.config.trainer):
            for index, batch in enumerate(batches):
                loss = self.module.training_step(batch, index)
                (loss / self.config.trainer.accumulate_grad_batches).backward()
        grads = {}
        for name, (flat,) in self.module.trained.items():
            assert flat.grad is not None
            grads[name] = flat.grad.clone()
        return grads


@pytest.fixture
def stepper(tiny_base, tiny_person) -> Any:
    def build(**changes: Any) -> Step:
        return Step(train_config(tiny_base, tiny_person, **changes))

    return build


def worst(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest distance of two gradients, relative to their length."""
    return max(float((one[n] - other[n]).norm() / one[n].norm()) for n in one)


def first(step: Step, count: int = 1) -> list[Batch]:
    return [batch for batch, _ in zip(step.loader, range(count), strict=False)]


def test_gradient_checkpointing_gives_the_same_bytes(stepper):
    plain = stepper()
    kept = plain.gradient(first(plain))
    saving = stepper(trainer__gradient_checkpointing=True)
    calls = []
    original = torch.utils.checkpoint.checkpoint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            torch.utils.checkpoint,
            "checkpoint",
            lambda *a, **k: (calls.append(1), original(*a, **k))[1],
        )
        twice = saving.gradient(first(saving))
    assert calls and all(torch.equal(kept[name], twice[name]) for name in kept)
    assert not saving.base.unet.is_gradient_checkpointing


@pytest.mark.parametrize("sizes", [(6, 2), (5, 3)])
def test_accumulation_equals_the_larger_batch(sizes, stepper):
    """To 1e-6 of the gradient's length, also when the last of the batches is smaller."""
    batch_size, accumulate = sizes
    small = stepper(data__batch_size=batch_size, trainer__accumulate_grad_batches=accumulate)
    large = stepper(data__batch_size=12)
    (whole,) = first(large)
    parts = first(small, accumulate)
    assert sum(len(part["keys"]) for part in parts) == len(whole["keys"]) == 12
    assert worst(large.gradient([whole]), small.gradient(parts)) < 1e-6


def test_plain_attention_gives_the_same_gradient(stepper):
    fused, plain = stepper(), stepper(trainer__attention="eager")
    before = type(next(iter(plain.base.unet.attn_processors.values())))
    assert worst(fused.gradient(first(fused)), plain.gradient(first(plain))) < 1e-5
    assert type(next(iter(plain.base.unet.attn_processors.values()))) is before


def test_bf16_true_computes_in_bf16_and_keeps_the_lora_in_32_bits(stepper):
    """Within 3 % of the exact gradient; afterwards the base has its very bytes back."""
    exact, half = stepper(), stepper(trainer__precision="bf16-true")
    before = {name: p.detach().clone() for name, p in half.base.unet.named_parameters()}
    seen = []
    half.base.unet.conv_in.register_forward_hook(lambda m, a, out: seen.append(out.dtype))
    gradient = half.gradient(first(half))
    assert seen == [torch.bfloat16]
    assert {g.dtype for g in gradient.values()} == {torch.float32}
    assert 0 < worst(exact.gradient(first(exact)), gradient) < 0.03
    after = dict(half.base.unet.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_lora_is_in_bf16_only_when_asked(stepper):
    from settings import composed

    asked = stepper(
        trainer__precision="bf16-true",
        trainer__lora_precision="bf16",
        optimizer=composed("optimizer=adamw").optimizer,
    )
    assert {g.dtype for g in asked.gradient(first(asked)).values()} == {torch.bfloat16}


def test_zero_terminal_noise_and_other_objectives_change_the_gradient(stepper):
    """Each switch reaches the loss; at its off value the gradient keeps its bytes."""
    plain = stepper()
    base = plain.gradient(first(plain, 3))
    again = stepper(objective__huber_c=0.3, objective__logit_mean=1.0)  # read by nothing that is on
    assert all(torch.equal(base[n], g) for n, g in again.gradient(first(again, 3)).items())
    switches = [
        {"noise_offset": 0.1},
        {"noise_offset": 0.1, "noise_offset_random": True},
        {"multires_noise_iterations": 3},
        {"ip_noise_gamma": 0.1},
        {"min_snr_gamma": 0.0},
        {"min_snr_gamma": 0.0, "debiased_estimation": True},
        {"zero_terminal_snr": True},
        {"loss_type": "l1"},
        {"loss_type": "huber"},
        {"loss_type": "smooth_l1", "huber_schedule": "exponential"},
        {"timestep_sampling": "logit_normal"},
        {"timestep_stratified": True},
        {"min_timestep": 500},
    ]
    lengths = [float(base["unet"].norm())]
    for switch in switches:
        objective = replace(plain.config.objective, **switch)
        plain.module.config = replace(plain.config, objective=objective)
        plain.module.alphas_cumprod = training_alphas(plain.base, objective)
        plain.loader.objective, plain.loader.delivered = objective, 0
        gradient = plain.gradient(first(plain, 3))["unet"]
        assert bool(torch.isfinite(gradient).all()), switch
        lengths.append(float(gradient.norm()))
    assert len(set(lengths)) == len(lengths), list(zip(["off", *switches], lengths, strict=True))


def test_debiased_zero_terminal_epsilon_is_refused(stepper):
    with pytest.raises(ConfigError, match="together need a v-prediction checkpoint"):
        stepper(
            objective__zero_terminal_snr=True,
            objective__debiased_estimation=True,
            objective__min_snr_gamma=0.0,
        )


def test_timesteps_beyond_the_checkpoints_are_refused(stepper):
    with pytest.raises(ConfigError, match=r"max_timestep must be at most 1000 .* got 1001"):
        stepper(objective__max_timestep=1001)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_fp16_without_a_gpu_is_refused_instead_of_replaced(tiny_base, tiny_person):
    config = train_config(
        tiny_base, tiny_person, trainer__precision="16-mixed", trainer__accelerator="auto"
    )
    with pytest.raises(ConfigError, match=r"trainer\.precision=16-mixed needs a GPU"):
        set_hardware(config.trainer)


def test_more_devices_than_there_are_cores_are_refused_instead_of_waited_for(
    tiny_base, tiny_person
):
    config = train_config(tiny_base, tiny_person, trainer__devices=1024)
    with pytest.raises(ConfigError, match=r"trainer\.devices must be at most \d+ on this"):
        set_hardware(config.trainer)


@pytest.mark.skipif(importlib.util.find_spec("xformers") is not None, reason="it is installed")
def test_xformers_says_what_is_missing():
    with pytest.raises(ConfigError, match="needs the package xformers"):
        check_acceleration(replace(TRAINER, attention="xformers"))


@pytest.mark.slow
def test_the_compiled_unet_gives_the_same_gradient(stepper):
    """To 1e-4 of the gradient's length; takes minutes, and a C++ compiler."""
    plain, compiled = stepper(), stepper(trainer__compile=True)
    assert worst(plain.gradient(first(plain)), compiled.gradient(first(compiled))) < 1e-4
    assert compiled.base.unet._compiled_call_impl is None
