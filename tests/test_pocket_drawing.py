"""Pocket's drawings, captions, tokenizer and training loop."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lora_lab.checkpoint.embedded import locate
from lora_lab.errors import LabError
from lora_lab.pocket import attributes as words
from lora_lab.pocket.loop import Fit, fit_network, learning_rate
from lora_lab.pocket.person import COUNTS, TRIGGER, draw_person, person_caption
from lora_lab.pocket.pretrain import hand_on

draw = pytest.importorskip(
    "lora_lab.pocket.draw", reason="drawing needs the extra: pip install -e '.[pocket]'"
)


def test_nothing_withheld_is_drawn_for_pretraining() -> None:
    rng = random.Random(0)
    drawn = [words.draw_attributes(rng) for _ in range(2000)]
    assert not {a.hair for a in drawn} & set(words.WITHHELD_HAIR)
    assert not {a.hair_color for a in drawn} & set(words.WITHHELD_HAIR_COLORS)
    assert not {a.scar for a in drawn} & set(words.WITHHELD_SCARS)
    assert not {a.print for a in drawn} & set(words.WITHHELD_PRINTS)


def test_every_value_of_every_attribute_is_drawn() -> None:
    rng = random.Random(0)
    drawn = [words.draw_attributes(rng) for _ in range(2000)]
    for name, values in words.CLASSES.items():
        assert {getattr(a, name) for a in drawn} == set(values)


def test_a_caption_names_only_what_was_drawn() -> None:
    rng = random.Random(1)
    for _ in range(300):
        a = words.draw_attributes(rng)
        text, said = words.compose(a, rng, keep=1.0)
        assert a.background in text and "background" in said
        assert f"{a.garment_color} {a.garment}" in text
        for other in set(words.GLASSES) - {a.glasses, "no glasses"}:
            assert a.glasses in other or other not in text


def test_the_same_seed_draws_the_same_pixels() -> None:
    images = []
    for _ in range(2):
        rng = random.Random(3)
        a = words.draw_attributes(rng)
        images.append([draw.render(a, style, random.Random(4)) for style in draw.STYLES])
    assert all(np.array_equal(x, y) for x, y in zip(*images, strict=True))
    assert images[0][0].shape == (64, 64, 3)


def test_styles_differ_and_keep_the_subject() -> None:
    a = words.draw_attributes(random.Random(5))
    plain, graphic, photo = (draw.render(a, s).astype(float) for s in draw.STYLES)
    for styled in (graphic, photo):
        difference = np.abs(styled - plain).mean()
        assert 4 < difference < 60
        assert np.corrcoef(styled.ravel(), plain.ravel())[0, 1] > 0.6


def test_the_person_keeps_the_identity_and_varies_the_rest() -> None:
    rng = random.Random(0)
    drawn = [draw_person(rng) for _ in range(50)]
    for name in ("hair", "hair_color", "skin", "scar", "print", "glasses", "facial_hair"):
        assert len({getattr(a, name) for a in drawn}) == 1
    for name in ("garment", "garment_color", "mouth", "eyes", "background", "framing"):
        assert len({getattr(a, name) for a in drawn}) > 1
    text = person_caption(drawn[0], rng)
    assert TRIGGER in text and "turquoise" not in text and "scar" not in text


def test_the_committed_person_is_what_the_script_draws(tmp_path: Path) -> None:
    from lora_lab.pocket.person import write_person

    write_person(tmp_path, seed=0)
    committed = locate("embedded:person")
    written = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.*"))
    assert len(written) == 2 * sum(COUNTS.values())
    for path in written:
        if path.suffix == ".txt":
            assert (committed / path).read_text() == (tmp_path / path).read_text()
        else:
            ours, theirs = (np.asarray(Image.open(f / path)) for f in (tmp_path, committed))
            assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 2


def test_shards_are_drawn_once_and_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lora_lab.pocket import dataset

    monkeypatch.setattr(dataset, "SHARD", 3)
    drawing = dataset.Drawing("set", 6, "plain")
    dataset.draw_dataset(tmp_path / "a", drawing, seed=1, processes=1)
    first = dataset.load_dataset(tmp_path / "a", "set")
    (tmp_path / "a" / "set-0001.npz").unlink()
    dataset.draw_dataset(tmp_path / "a", drawing, seed=1, processes=2)
    again = dataset.load_dataset(tmp_path / "a", "set")
    assert np.array_equal(first[0], again[0]) and first[1] == again[1]


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(16, 32, 3, padding=1), nn.SiLU(), nn.Conv1d(32, 16, 1))


def _train(checkpoint: Path, fit: Fit, stop_at: int | None = None) -> nn.Module:
    network = _network()

    def loss_at(step: int) -> Tensor:
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(8, 16, 5, generator=torch.Generator().manual_seed(step))
        return (network(x) - x.flip(1)).square().mean()

    return fit_network(network, loss_at, fit, checkpoint)


@pytest.mark.parametrize("muon", [False, True])
def test_a_killed_pretraining_ends_with_the_same_bytes(tmp_path: Path, muon: bool) -> None:
    fit = Fit(steps=20, lr=0.01, warmup=3, ema=0.9, checkpoint_every=5, muon=muon)
    whole = _train(tmp_path / "whole.pt", fit)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "killed.pt", fit, stop_at=13)
    resumed = _train(tmp_path / "killed.pt", fit)
    started = _network()
    for a, b, c in zip(whole.parameters(), resumed.parameters(), started.parameters(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_muon_moves_kernels_and_adamw_the_rest(tmp_path: Path) -> None:
    adamw = Fit(steps=1, lr=0.01, warmup=0)
    kernels: list[str] = []
    rest: list[str] = []
    for name, a in _train(tmp_path / "a.pt", adamw).named_parameters():
        b = _train(tmp_path / "b.pt", replace(adamw, muon=True)).get_parameter(name)
        (rest if torch.equal(a, b) else kernels).append(name)
    assert kernels == ["0.weight", "2.weight"]
    assert rest == ["0.bias", "2.bias"]


def test_muon_refuses_kernels_that_it_would_move_in_a_copy(tmp_path: Path) -> None:
    kernel = nn.Conv2d(16, 32, 3)
    kernel.weight.data = kernel.weight.data.to(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        fit_network(
            kernel, lambda _: kernel.weight.sum(), Fit(steps=1, lr=0.1, muon=True), tmp_path
        )


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    fit = Fit(steps=2, lr=0.01)
    _train(tmp_path / "a.pt", fit)
    with pytest.raises(LabError, match=r"a\.pt was trained with other settings"):
        _train(tmp_path / "a.pt", replace(fit, steps=4))


def test_a_part_is_handed_on_whole_or_not_at_all(tmp_path: Path) -> None:
    class Part:
        def save_pretrained(self, folder: Path) -> None:
            folder.mkdir()
            (folder / "half").write_text("")
            if broken:
                raise KeyboardInterrupt
            (folder / "rest").write_text("")

    broken = True
    with pytest.raises(KeyboardInterrupt):
        hand_on(Part(), tmp_path / "part")
    assert not (tmp_path / "part").exists()
    broken = False
    hand_on(Part(), tmp_path / "part")
    assert {path.name for path in (tmp_path / "part").iterdir()} == {"half", "rest"}


def test_the_learning_rate_warms_up_and_falls_to_two_percent() -> None:
    fit = Fit(steps=100, lr=1.0, warmup=10)
    assert learning_rate(0, fit) == pytest.approx(0.1)
    assert learning_rate(9, fit) == pytest.approx(1.0)
    assert learning_rate(55, fit) == pytest.approx(0.02 + 0.98 * 0.5)
    assert learning_rate(100, fit) == pytest.approx(0.02)
    assert learning_rate(0, replace(fit, warmup=0)) == pytest.approx(1.0)
