from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lora_lab.data.batch import Batch
from lora_lab.data.captions import Caption
from lora_lab.data.examples import Example
from lora_lab.data.images import ImageFile
from lora_lab.data.latent_cache import Posterior
from lora_lab.data.loader import PairedLoader
from lora_lab.data.prepare import Item, View
from tiny_model import tiny_tokenizer
from train_setup import OBJECTIVE, data_config

TOKENIZER = tiny_tokenizer()


def items(count: int = 5, repeats: int = 2, buckets: int = 1, flip: bool = False) -> list[Item]:
    made = []
    for index in range(count):
        image = ImageFile(Path(f"2_zqx/{index}.png"), "0" * 64, (32, 32))
        caption = Caption("zqx, red, green, blue, smile", from_folder=False)
        example = Example(f"2_zqx/{index}.png", image, caption, repeats)
        height = 8 + 4 * (index % buckets)
        latents = torch.full((4, height, 8), float(index))
        views = [View(Posterior(one, torch.ones_like(one))) for one in (latents, -latents)]
        made.append(Item(example, (32, 4 * height), (views[0],), (views[1],) if flip else ()))
    return made


def loader(things: list[Item], accumulate: int = 1, seed: int = 1, **data: object) -> PairedLoader:
    config = data_config(Path(), **data)
    return PairedLoader(things, TOKENIZER, config, OBJECTIVE, seed, 1000, accumulate)


def epochs(source: PairedLoader, count: int) -> list[Batch]:
    return [batch for _ in range(count) for batch in source]


def draws(batches: list[Batch]) -> dict[tuple[str, int, int], tuple[Tensor, int, Tensor, Tensor]]:
    """(image, step, occurrence) -> noise, timestep, latents, tokens."""
    found = {}
    for batch in batches:
        met: Counter[str] = Counter()
        for row, key in enumerate(batch["keys"]):
            value = (
                *(batch["noise"][row], int(batch["timesteps"][row])),
                *(batch["latents"][row], batch["input_ids"][row]),
            )
            found[key, batch["step"], met[key]] = value
            met[key] += 1
    return found


def test_an_epoch_shows_each_image_as_often_as_its_repeats():
    batches = epochs(loader(items(), batch_size=4), 1)
    shown = Counter(key for batch in batches for key in batch["keys"])
    assert set(shown.values()) == {2} and len(shown) == 5
    assert [len(batch["keys"]) for batch in batches] == [4, 4, 2]


def test_order_depends_on_the_seed_and_the_epoch_alone():
    def order(batch_size: int, seed: int) -> list[str]:
        source = loader(items(), seed=seed, batch_size=batch_size)
        return [key for batch in epochs(source, 2) for key in batch["keys"]]

    assert order(4, 1) == order(3, 1) != order(4, 2)
    assert order(4, 1)[:10] != order(4, 1)[10:]


def test_the_same_image_in_the_same_step_draws_the_same_whatever_the_batch_holds():
    """Other batch size, and two images more in the set."""
    options = {"flip": True, "shuffle_caption": True}
    one = draws(epochs(loader(items(5, flip=True), batch_size=4, **options), 6))
    other = draws(epochs(loader(items(7, flip=True), batch_size=5, **options), 6))
    common = one.keys() & other.keys()
    assert len(common) > 10
    for key in common:
        for here, there in zip(one[key], other[key], strict=True):
            assert torch.equal(torch.as_tensor(here), torch.as_tensor(there))


def test_two_showings_in_one_step_draw_differently():
    batches = epochs(loader(items(1, repeats=4), batch_size=4), 1)
    noise = [draw[0] for draw in draws(batches).values()]
    assert len(noise) == 4 and not torch.equal(noise[0], noise[1])


def test_accumulated_batches_are_one_step_and_count_occurrences_together():
    whole = draws(epochs(loader(items(1, repeats=4), batch_size=4), 1))
    batches = epochs(loader(items(1, repeats=4), accumulate=2, batch_size=2), 1)
    assert [(batch["step"], batch["ends_step"]) for batch in batches] == [(1, False), (1, True)]
    parts = torch.cat([batch["noise"] for batch in batches])
    assert torch.equal(parts, torch.stack([draw[0] for draw in whole.values()]))


def test_batches_never_mix_buckets():
    source = loader(items(6, buckets=2), batch_size=4)
    sizes = [tuple(batch["latents"].shape[1:]) for batch in epochs(source, 1)]
    assert len(sizes) == len(source) == 4 and len(set(sizes)) == 2


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_goes_on_exactly_where_it_was(stop):
    whole = epochs(loader(items(), batch_size=4), 3)
    first, second = loader(items(), batch_size=4), loader(items(), batch_size=4)
    taken: list[Batch] = []
    while len(taken) < stop:
        for batch in first:
            taken.append(batch)
            if len(taken) == stop:
                break
    second.load_state_dict(first.state_dict())
    rest = [batch for _ in range(3) for batch in second][: len(whole) - stop]
    assert [b["step"] for b in taken + rest] == [b["step"] for b in whole]
    assert all(torch.equal(a["noise"], b["noise"]) for a, b in zip(rest, whole[stop:], strict=True))


def test_timesteps_cover_the_schedule_evenly():
    batches = epochs(loader(items(10, repeats=1), batch_size=10), 60)
    timesteps = torch.cat([batch["timesteps"] for batch in batches]).double()
    assert timesteps.min() >= 0 and timesteps.max() <= 999
    assert float(timesteps.mean()) == pytest.approx(499.5, abs=4 * 1000 / 12**0.5 / 600**0.5)


def with_example(item: Item, mask: Tensor | None = None, is_reg: bool = False) -> Item:
    views = tuple(replace(view, mask=mask) for view in item.views)
    return replace(item, example=replace(item.example, is_reg=is_reg), views=views)


def test_regularisation_images_carry_the_prior_weight():
    things = items(4, repeats=1)
    things[1] = with_example(things[1], is_reg=True)
    [batch] = epochs(loader(things, batch_size=4, prior_loss_weight=0.25), 1)
    weights = dict(zip(batch["keys"], batch["loss_weights"].tolist(), strict=True))
    assert weights == {f"2_zqx/{i}.png": 0.25 if i == 1 else 1.0 for i in range(4)}


def test_images_without_a_mask_count_fully_beside_masked_ones():
    things = items(2, repeats=1)
    assert epochs(loader(things, batch_size=2), 1)[0]["masks"] is None
    things[0] = with_example(things[0], mask=torch.zeros(1, 8, 8))
    [batch] = epochs(loader(things, batch_size=2), 1)
    assert batch["masks"] is not None and batch["masks"].shape == (2, 1, 8, 8)
    means = dict(zip(batch["keys"], batch["masks"].mean(dim=(1, 2, 3)).tolist(), strict=True))
    assert means == {"2_zqx/0.png": 0.0, "2_zqx/1.png": 1.0}


def test_samples_of_the_posterior_have_its_mean_and_deviation_and_leave_the_noise_alone():
    plain = draws(epochs(loader(items(1, repeats=8), batch_size=8), 40))
    sampled = draws(epochs(loader(items(1, repeats=8), batch_size=8, latents="sample"), 40))
    values = torch.stack([draw[2] for draw in sampled.values()])
    assert float(values.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(values.std()) == pytest.approx(1.0, abs=0.02)
    assert all(torch.equal(plain[key][0], sampled[key][0]) for key in plain)


def test_all_variants_are_shown_and_the_choice_depends_on_the_step():
    [item] = items(1, repeats=8)
    views = tuple(
        View(Posterior(torch.full((4, 8, 8), float(index)), torch.ones(4, 8, 8)))
        for index in range(3)
    )
    source = loader([replace(item, views=views)], batch_size=8)
    shown = [int(draw[2].mean()) for draw in draws(epochs(source, 20)).values()]
    assert Counter(shown).keys() == {0, 1, 2} and min(Counter(shown).values()) > 30
