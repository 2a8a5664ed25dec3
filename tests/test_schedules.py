import pytest
import torch

from lora_lab.config import ScheduleConfig
from lora_lab.errors import ConfigError
from lora_lab.schedules import NAMES, build_schedule, factor


def test_cosine_agrees_with_diffusers_scheduler():
    from diffusers.optimization import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_cosine_schedule_with_warmup(optimizer, 3, 20).lr_lambdas[0]
    ours = [factor("cosine", step, 20, 3, 1.0) for step in range(21)]
    assert ours == pytest.approx([theirs(step) for step in range(21)])


@pytest.mark.parametrize(
    ("name", "middle", "end"),
    [("cosine", 0.5, 0.0), ("constant", 1.0, 1.0), ("linear", 0.5, 0.0), ("polynomial", 0.25, 0.0)],
)
def test_begins_at_one_and_ends_where_it_should(name, middle, end):
    values = [factor(name, step, 10, 0, 2.0) for step in (0, 5, 10)]
    assert values == pytest.approx([1.0, middle, end])


@pytest.mark.parametrize("name", NAMES)
def test_warm_up_rises_from_zero(name):
    assert [factor(name, step, 20, 4, 1.0) for step in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_unknown_name_is_refused():
    with pytest.raises(ConfigError, match=r"schedule\.name must be one of cosine, .* got 'cosin'"):
        factor("cosin", 0, 10, 0, 1.0)


def test_schedule_multiplies_the_rate_of_every_group():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    schedule = build_schedule(optimizer, ScheduleConfig("linear", 0, 1.0), total_steps=4)
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.75, 0.075])
