from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn import Parameter

from lora_lab.errors import ConfigError
from lora_lab.network import flatten
from lora_lab.optimizers import build_optimizer, step_rates
from train_setup import OPTIMIZER


def tensors() -> list[Parameter]:
    draws = torch.Generator().manual_seed(0)
    shapes = [(8, 16), (32, 8), (4, 4, 1, 1), (3,)]
    return [Parameter(torch.randn(shape, generator=draws)) for shape in shapes]


def d_of(optimizer: torch.optim.Optimizer) -> float:
    d = step_rates(optimizer).d
    assert d is not None
    return d


def loss_of(parameters: list[Parameter]) -> torch.Tensor:
    """A bowl whose centre lies at 1, so that gradients agree from step to step."""
    return sum(((p - 1.0) ** 2).sum() for p in parameters)  # type: ignore[return-value]


def test_flat_tensors_take_the_steps_of_the_library():
    """d to 1e-6 relative and every value to 1e-6, over 60 steps in which d grows."""
    plain, flat_views = tensors(), tensors()
    library = build_optimizer({"unet": plain[:2], "text_encoder": plain[2:]}, OPTIMIZER)
    flats = {"unet": flatten(flat_views[:2]), "text_encoder": flatten(flat_views[2:])}
    ours = build_optimizer({name: [flat] for name, flat in flats.items()}, OPTIMIZER)
    for _ in range(60):
        library.zero_grad()
        loss_of(plain).backward()
        library.step()
        for flat in flats.values():
            assert flat.grad is not None
            flat.grad.zero_()
        loss_of(flat_views).backward()
        ours.step()
        assert d_of(ours) == pytest.approx(d_of(library), rel=1e-6)
    assert d_of(ours) > 2e-6
    for view, parameter in zip(flat_views, plain, strict=True):
        torch.testing.assert_close(view, parameter, rtol=1e-6, atol=1e-6)


def test_growth_rate_caps_d_exactly():
    parameters = tensors()
    optimizer = build_optimizer({"unet": parameters}, OPTIMIZER)
    d = []
    for _ in range(30):
        optimizer.zero_grad()
        loss_of(parameters).backward()
        d.append(d_of(optimizer))
        optimizer.step()
    growing = [later / sooner for sooner, later in pairwise(d) if later > sooner]
    assert d[:2] == [1e-6, 1e-6] and len(growing) > 20
    assert growing == pytest.approx([1.02] * len(growing), rel=1e-12)


def test_without_growth_rate_d_jumps():
    parameters = tensors()
    optimizer = build_optimizer({"unet": parameters}, replace(OPTIMIZER, growth_rate=None))
    for _ in range(12):
        optimizer.zero_grad()
        loss_of(parameters).backward()
        optimizer.step()
    assert d_of(optimizer) > 1e-3


def test_rates_are_d_times_lr_times_the_factor():
    config = replace(OPTIMIZER, lr=0.5, text_encoder_lr=0.1, d0=1e-4)
    groups = {"unet": tensors()[:1], "text_encoder": tensors()[1:]}
    rates = step_rates(build_optimizer(groups, config))
    assert rates.d == 1e-4
    assert rates.dlr == pytest.approx({"unet": 5e-5, "text_encoder": 5e-6})


def test_adamw_has_its_own_rate_and_no_d():
    config = replace(OPTIMIZER, name="adamw", lr=1e-3, text_encoder_lr=0.5)
    groups = {"unet": tensors()[:1], "text_encoder": tensors()[1:]}
    rates = step_rates(build_optimizer(groups, config))
    assert rates.d is None
    assert rates.dlr == pytest.approx({"unet": 1e-3, "text_encoder": 5e-4})


def test_prodigy_grows_d():
    pytest.importorskip("prodigyopt")
    parameters = tensors()
    optimizer = build_optimizer({"unet": parameters}, replace(OPTIMIZER, name="prodigy"))
    for _ in range(5):
        optimizer.zero_grad()
        loss_of(parameters).backward()
        optimizer.step()
    assert d_of(optimizer) > 1e-6


def test_prodigy_refuses_a_factor_that_it_would_ignore():
    pytest.importorskip("prodigyopt")
    config = replace(OPTIMIZER, name="prodigy", text_encoder_lr=0.5)
    with pytest.raises(ConfigError, match=r"optimizer\.text_encoder_lr must be 1 .* got 0\.5"):
        build_optimizer({"unet": tensors()[:1], "text_encoder": tensors()[1:]}, config)


def test_unknown_name_is_refused():
    with pytest.raises(ConfigError, match=r"optimizer\.name must be one of .* got 'adan'"):
        build_optimizer({"unet": tensors()}, replace(OPTIMIZER, name="adan"))
