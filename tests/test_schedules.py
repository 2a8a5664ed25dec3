from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from diffusers import optimization as diffusers_schedules
from torch.optim.lr_scheduler import LambdaLR
from transformers.optimization import get_inverse_sqrt_schedule

from lora_lab.config.schedule import SCHEDULES
from lora_lab.errors import ConfigError
from lora_lab.optimizers.schedules import build_schedule, check_schedule, factor, warmup_steps
from train_setup import SCHEDULE


def sgd() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def values(schedule: LambdaLR, steps: int) -> list[float]:
    return [schedule.lr_lambdas[0](step) for step in range(steps)]


WITH_WARMUP = {
    "constant": lambda o: diffusers_schedules.get_constant_schedule_with_warmup(o, 3),
    "linear": lambda o: diffusers_schedules.get_linear_schedule_with_warmup(o, 3, 20),
    "cosine": lambda o: diffusers_schedules.get_cosine_schedule_with_warmup(o, 3, 20),
    "cosine_with_restarts": lambda o: (
        diffusers_schedules.get_cosine_with_hard_restarts_schedule_with_warmup(o, 3, 20, 4)
    ),
    "polynomial": lambda o: diffusers_schedules.get_polynomial_decay_schedule_with_warmup(
        o, 3, 20, lr_end=0.0, power=2.0
    ),
    "inverse_sqrt": lambda o: get_inverse_sqrt_schedule(o, 3),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_agrees_with_diffusers_or_transformers(name):
    theirs: Callable[[torch.optim.Optimizer], LambdaLR] = WITH_WARMUP[name]
    config = replace(SCHEDULE, name=name, warmup_steps=3, power=2.0, cycles=4)
    ours = [factor(config, step, 20) for step in range(20)]
    assert ours == pytest.approx(values(theirs(sgd()), 20), abs=1e-12)


def test_inverse_sqrt_without_warm_up_agrees_with_transformers():
    theirs = values(get_inverse_sqrt_schedule(sgd(), 0, timescale=50), 20)
    config = replace(SCHEDULE, name="inverse_sqrt", timescale=50)
    assert [factor(config, step, 20) for step in range(20)] == pytest.approx(theirs)


@pytest.mark.parametrize(
    ("name", "middle", "end"),
    [
        ("cosine", 0.5, 0.0),
        ("constant", 1.0, 1.0),
        ("linear", 0.5, 0.0),
        ("polynomial", 0.25, 0.0),
        ("cosine_with_restarts", 1.0, 0.0),
        ("inverse_sqrt", (10 / 15) ** 0.5, 0.5**0.5),
    ],
)
def test_begins_at_one_and_ends_where_it_should(name, middle, end):
    config = replace(SCHEDULE, name=name, power=2.0, cycles=2, timescale=10)
    found = [factor(config, step, 10) for step in (0, 5, 10)]
    assert found == pytest.approx([1.0, middle, end])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [{"warmup_steps": 4}, {"warmup_share": 0.2}])
def test_warm_up_rises_from_zero(name, warmup):
    config = replace(SCHEDULE, name=name, **warmup)
    assert [factor(config, step, 20) for step in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_unknown_name_is_refused():
    with pytest.raises(
        ConfigError, match=r"schedule\.name must be one of constant, .* got 'cosin'"
    ):
        factor(replace(SCHEDULE, name="cosin"), 0, 10)


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ConfigError, match=r"warmup_steps must be at most 10, .* got 11"):
        check_schedule(replace(SCHEDULE, warmup_steps=11), total_steps=10)


def test_schedule_multiplies_the_rate_of_every_group():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    schedule = build_schedule(optimizer, replace(SCHEDULE, name="linear"), total_steps=4)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.75, 0.075])


def test_a_share_of_the_warm_up_is_cut_to_whole_steps_as_in_sd_scripts():
    config = replace(SCHEDULE, warmup_share=0.1)
    assert [warmup_steps(config, total) for total in (9, 15, 19, 20, 1100)] == [0, 1, 1, 2, 110]
