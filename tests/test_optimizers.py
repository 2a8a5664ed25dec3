"""Optimizers by name, each against the library's own class on the same problem."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from dadaptation import DAdaptAdam
from torch.nn import Parameter
from torch.optim import Optimizer

from lora_lab.config import OptimizerConfig
from lora_lab.config.optimizer import TABLE
from lora_lab.errors import ConfigError
from lora_lab.network import flatten
from lora_lab.optimizers import (
    averaged_weights,
    build_optimizer,
    dadapt_adam,
    entry_of,
    step_rates,
)
from lora_lab.optimizers.classes import arguments
from settings import composed as as_typed
from train_setup import OPTIMIZER


def composed(name: str, *overrides: str) -> OptimizerConfig:
    """An optimizer as conf/optimizer/<name>.yaml has it."""
    guide = ("model=sd15", "model.checkpoint=none")
    return as_typed(*guide, f"optimizer={name}", *overrides).optimizer


def tensors() -> list[Parameter]:
    draws = torch.Generator().manual_seed(0)
    shapes = [(8, 16), (32, 8), (4, 4, 1, 1), (3,)]
    return [Parameter(torch.randn(shape, generator=draws)) for shape in shapes]


def d_of(optimizer: Optimizer) -> float:
    d = step_rates(optimizer).d
    assert d is not None
    return float(d)


def loss_of(parameters: list[Parameter]) -> torch.Tensor:
    """A bowl whose centre lies at 1, so that gradients agree from step to step."""
    return sum(((p - 1.0) ** 2).sum() for p in parameters)  # type: ignore[return-value]


def take_steps(optimizer: Optimizer, parameters: list[Parameter], steps: int) -> list[float]:
    """The d (or the rate) of each step."""
    rates = []
    for _ in range(steps):
        for group in optimizer.param_groups:
            for tensor in group["params"]:
                if tensor.grad is not None:
                    tensor.grad.zero_()
        loss_of(parameters).backward()
        found = step_rates(optimizer)
        rates.append(float(found.dlr["unet"] if found.d is None else found.d))
        optimizer.step()
    return rates


def libraries(name: str) -> Callable[[list[Parameter]], Any]:
    """The library's class, called as its own documentation does, with the values of conf/."""
    if name.startswith("dadapt"):
        import dadaptation as d

        adam = {"decouple": True, "use_bias_correction": True, "growth_rate": 1.02}
        return {
            "dadapt_adam": lambda p: d.DAdaptAdam(p, betas=(0.9, 0.99), weight_decay=0.6, **adam),
            "dadapt_adan": lambda p: d.DAdaptAdan(p, growth_rate=1.02),
            "dadapt_lion": lambda p: d.DAdaptLion(p, weight_decay=0.6),
            "dadapt_sgd": lambda p: d.DAdaptSGD(p, momentum=0.9, growth_rate=1.02),
            "dadapt_adagrad": lambda p: d.DAdaptAdaGrad(p, growth_rate=1.02),
        }[name]
    if name == "prodigy":
        prodigy = pytest.importorskip("prodigyopt").Prodigy
        return lambda p: prodigy(
            p, betas=(0.9, 0.99), weight_decay=0.6, use_bias_correction=True, growth_rate=1.02
        )
    if name == "schedule_free_adamw":
        free = pytest.importorskip("schedulefree").AdamWScheduleFree
        return lambda p: free(p, lr=1e-3)
    if name == "lion":
        lion = pytest.importorskip("lion_pytorch").Lion
        return lambda p: lion(p, lr=2e-5, weight_decay=0.1)
    from transformers.optimization import Adafactor

    fixed = {"scale_parameter": False, "relative_step": False}
    return {
        "adamw": lambda p: torch.optim.AdamW(p, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.01),
        "adafactor": lambda p: Adafactor(p, lr=1e-4, **fixed),
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    }[name]


NAMES = [name for name, entry in TABLE.items() if not entry.needs_gpu]
ADAPTIVE = [name for name in NAMES if TABLE[name].finds_d]


@pytest.mark.parametrize("name", NAMES)
def test_takes_the_steps_of_the_librarys_class(name):
    """Values and d within 1e-5 relative over 60 steps; ours on flat tensors where it may be."""
    plain, mine = tensors(), tensors()
    library = libraries(name)(plain)
    for group in library.param_groups:
        group["name"] = "unet"
    if name == "schedule_free_adamw":
        library.train()
    config = composed(name)
    flat = entry_of(config).flat
    parts = {"unet": mine[:2], "text_encoder": mine[2:]}
    ours = build_optimizer({k: [flatten(v)] if flat else v for k, v in parts.items()}, config)
    theirs = take_steps(library, plain, 60)
    assert take_steps(ours, mine, 60) == pytest.approx(theirs, rel=1e-5)
    for one, other, start in zip(mine, plain, tensors(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        assert not torch.equal(one, start)


@pytest.mark.parametrize("numbers", [6, 2**18])
@pytest.mark.parametrize("changes", [{}, {"decouple": False}, {"use_bias_correction": False}])
def test_dadapt_adam_in_pieces_has_the_d_of_the_package(changes, numbers, monkeypatch):
    """To 1e-6, a warm-up from 0 and two layer scales included; pieces that end within a tensor."""
    monkeypatch.setattr(dadapt_adam, "PIECE", numbers)
    config = replace(composed("dadapt_adam"), weight_decay=0.1, growth_rate=1.5, **changes)
    draws = torch.Generator().manual_seed(0)
    sizes = (40, 27) if numbers < 100 else (300_000, 27)
    starts = [torch.randn(size, generator=draws) for size in sizes]
    found, ends = [], []
    for make in (DAdaptAdam, dadapt_adam.on_device(DAdaptAdam)):
        parameters = [Parameter(start.clone()) for start in starts]
        groups = [
            {"params": [one], "name": name, "layer_scale": scale}
            for one, name, scale in zip(parameters, ("unet", "text"), (1.0, 0.3), strict=True)
        ]
        optimizer = make(groups, **arguments(config))
        rates = []
        for step in range(20):
            for group in optimizer.param_groups:
                group["lr"] = min(1.0, step / 4)
            rates += take_steps(optimizer, parameters, 1)
        found.append(rates)
        ends.append(parameters)
    assert found[1] == pytest.approx(found[0], rel=1e-6) and found[0][-1] > 5e-4
    for one, other, start in zip(*ends, starts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        assert not torch.equal(one, start)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_adaptive_optimizers_have_a_d_that_grows_and_is_logged(name):
    parameters = tensors()
    d = take_steps(build_optimizer({"unet": parameters}, composed(name)), parameters, 40)
    assert d[0] == 1e-6 and d[-1] > 1.5e-6
    assert all(later >= sooner for sooner, later in pairwise(d))


@pytest.mark.parametrize("name", [name for name in ADAPTIVE if name != "dadapt_lion"])
def test_growth_rate_caps_d_exactly(name):
    parameters = tensors()
    d = take_steps(build_optimizer({"unet": parameters}, composed(name)), parameters, 30)
    growing = [later / sooner for sooner, later in pairwise(d) if later > sooner]
    if name == "prodigy":
        growing = growing[1:]  # its first growth isn't above d0 by a factor
    assert len(growing) > 15 and growing == pytest.approx([1.02] * len(growing), rel=1e-9)


def test_without_growth_rate_d_jumps():
    parameters = tensors()
    optimizer = build_optimizer({"unet": parameters}, replace(OPTIMIZER, growth_rate=None))
    take_steps(optimizer, parameters, 12)
    assert d_of(optimizer) > 1e-3


def test_rates_are_d_times_lr_times_the_factor():
    config = replace(OPTIMIZER, lr=0.5, text_encoder_lr=0.1, d0=1e-4)
    groups = {"unet": tensors()[:1], "text_encoder": tensors()[1:]}
    rates = step_rates(build_optimizer(groups, config))
    assert rates.d == 1e-4
    assert rates.dlr == pytest.approx({"unet": 5e-5, "text_encoder": 5e-6})


@pytest.mark.parametrize("name", ["adamw", "sgd", "lion", "adafactor", "schedule_free_adamw"])
def test_a_fixed_rate_has_no_d_and_a_factor_for_the_text_encoder(name):
    config = composed(name, "optimizer.lr=1e-3", "optimizer.text_encoder_lr=0.5")
    groups = {"unet": tensors()[:1], "text_encoder": tensors()[1:]}
    rates = step_rates(build_optimizer(groups, config))
    assert rates.d is None
    assert rates.dlr == pytest.approx({"unet": 1e-3, "text_encoder": 5e-4})


@pytest.mark.parametrize("name", [name for name in ADAPTIVE if name != "dadapt_adam"])
def test_a_factor_that_would_be_ignored_is_refused(name):
    config = composed(name, "optimizer.text_encoder_lr=0.5")
    with pytest.raises(ConfigError, match=r"optimizer\.text_encoder_lr must be 1 .* got 0\.5"):
        build_optimizer({"unet": tensors()[:1], "text_encoder": tensors()[1:]}, config)


def test_relative_step_logs_the_rate_that_adafactor_uses():
    """arXiv 1804.04235, algorithm 5: min(0.01, 1 / sqrt(step)); one value, so the step shows it."""
    config = composed("adafactor", "optimizer.lr=1", "optimizer.args.relative_step=true")
    only = Parameter(torch.zeros(1))
    optimizer = build_optimizer({"unet": [only]}, config)
    for step in range(1, 4):
        before, rate = only.item(), step_rates(optimizer).dlr["unet"]
        only.grad = torch.ones(1)
        optimizer.step()
        assert rate == 0.01 and before - only.item() == pytest.approx(rate, rel=1e-4), step


@pytest.mark.parametrize("name", ["dadapt_adam", "dadapt_lion", "dadapt_adagrad", "prodigy"])
def test_a_first_step_at_rate_zero_leaves_weights_and_d(name):
    """Warm-up begins at 0: nothing moves in that step, and d grows in the steps that follow."""
    parameters = tensors()
    optimizer = build_optimizer({"unet": parameters}, composed(name))
    optimizer.param_groups[0]["lr"] = 0.0
    take_steps(optimizer, parameters, 1)
    assert all(torch.equal(a, b) for a, b in zip(parameters, tensors(), strict=True))
    assert d_of(optimizer) == 1e-6
    for step in range(1, 40):
        optimizer.param_groups[0]["lr"] = min(1.0, step / 5)
        take_steps(optimizer, parameters, 1)
    assert d_of(optimizer) > 1.2e-6


def test_schedule_free_saves_the_average_and_trains_on_unharmed():
    """The average by hand: x_{k+1} = (1 - 1/k) x_k + z_k / k, arXiv 2405.15682, equation 5."""
    looked, alone = Parameter(torch.full((3,), 2.0)), Parameter(torch.full((3,), 2.0))
    config = composed("schedule_free_adamw", "optimizer.lr=0.1")
    watched = build_optimizer({"unet": [looked]}, config)
    free = build_optimizer({"unet": [alone]}, config)
    x = looked.detach().clone()
    for step in range(1, 9):
        take_steps(watched, [looked], 1)
        take_steps(free, [alone], 1)
        x += (watched.state[looked]["z"] - x) / step
        at_gradient = looked.detach().clone()
        with averaged_weights(watched):
            torch.testing.assert_close(looked, x, rtol=1e-5, atol=1e-6)
            assert torch.equal(looked, at_gradient) == (step == 1)
        assert torch.equal(looked, at_gradient)
    assert torch.equal(looked, alone)


def test_prodigy_takes_the_guides_other_arguments():
    config = composed("prodigy", "optimizer.d_coef=2", "optimizer.safeguard_warmup=true")
    group = build_optimizer({"unet": tensors()}, config).param_groups[0]
    assert group["d_coef"] == 2.0 and group["safeguard_warmup"] is True


def test_a_class_of_the_users_own_gets_what_is_set_and_no_more():
    config = composed(
        "custom",
        "optimizer._target_=torch.optim.NAdam",
        "optimizer.weight_decay=0.1",
        "+optimizer.args.momentum_decay=0.5",
    )
    plain, mine = tensors(), tensors()
    take = torch.optim.NAdam(
        [{"params": plain, "name": "unet"}], 1e-4, (0.9, 0.999), 1e-8, 0.1, 0.5
    )
    take_steps(take, plain, 5)
    take_steps(build_optimizer({"unet": mine}, config), mine, 5)
    assert all(torch.equal(a, b) for a, b in zip(plain, mine, strict=True))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+optimizer.args.nestrov=true"], "nestrov: SGD has no argument nestrov; it has lr, mom"),
        (["optimizer.betas=[0.9,0.9]"], r"r\.betas: SGD has no argument betas; it has lr, momentu"),
        (["optimizer._target_=torch.optim.Sgd"], "torch.optim has no class Sgd"),
        (["optimizer._target_=nowhere.Sgd"], "needs the package nowhere, which can't be imported"),
        (["optimizer._target_=torch.nn.Linear"], "must name a subclass of torch.optim.Optimizer"),
        (["optimizer.momentum=0.5", "+optimizer.args.nesterov=1", "+optimizer.args.dampening=1"],
         "optimizer=custom refuses its arguments .* Nesterov momentum requires"),
    ],
)  # fmt: skip
def test_a_wrong_class_or_argument_is_named(overrides, message):
    config = composed("custom", "optimizer._target_=torch.optim.SGD", *overrides)
    with pytest.raises(ConfigError, match=message):
        build_optimizer({"unet": tensors()}, config)


def test_adamw_8bit_says_what_is_missing():
    with pytest.raises(ConfigError, match=r"optimizer=adamw_8bit needs (the package bits|a GPU)"):
        build_optimizer({"unet": tensors()}, composed("adamw_8bit"))


def test_unknown_name_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer\.name must be one of .* got 'adan'"):
        build_optimizer({"unet": tensors()}, replace(OPTIMIZER, name="adan"))


@pytest.mark.parametrize("name", [name for name in ADAPTIVE if name.startswith("dadapt")])
def test_d_grows_in_bf16_as_in_32_bits(name):
    """So a LoRA in bf16 is allowed with them; with Prodigy it isn't."""
    found = []
    for kind in (torch.float32, torch.bfloat16):
        parameters = [Parameter(tensor.detach().to(kind)) for tensor in tensors()]
        optimizer = build_optimizer({"unet": parameters}, composed(name))
        found.append(take_steps(optimizer, parameters, 60)[-1])
    assert found[0] > 2e-6 and found[1] == pytest.approx(found[0], rel=0.02)
