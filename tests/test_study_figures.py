"""What the figures of effects and costs hold."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from lora_lab.study.figures import render
from lora_lab.study.figures.curve_axes import pen_for
from lora_lab.study.figures.effects import MARKS, draw
from lora_lab.study.figures.held_out import draw as draw_held_out
from lora_lab.study.figures.loss import draw_paired
from lora_lab.study.figures.pareto import chosen_cost, frontier
from lora_lab.study.figures.style import DARK, LIGHT, NARROW, WIDE, drawing
from lora_lab.study.judge.verdict import Study, judge
from lora_lab.study.read.load import load_sweep
from study_sweep_builder import SweepBuilder


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    folder = tmp_path_factory.mktemp("figures") / "sweep"
    sweep = SweepBuilder(folder, seed_spread=0.004, image_noise=0.0002)
    sweep.base(3).values("2", 3, effect=0.003).values("8", 3, lora_bytes=500_000)
    sweep.values("32", 3, effect=-0.003).values("64", 3, spread=0.004)
    return judge(load_sweep(sweep.write()))


def test_each_verdict_has_a_shape_and_a_colour(study):
    with drawing(LIGHT, WIDE):
        figure = draw(pen_for(study, LIGHT, WIDE))
    (axes,) = figure.axes
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert labels == ["2", "8", "32", "64"]
    verdicts = [one.verdict for one in study.values]
    assert len({MARKS[verdict][0] for verdict in verdicts}) == 4
    # One dot a seed, one mark a value: their places on the axis are the judge's own figures.
    offsets = [c.get_offsets() for c in axes.collections if len(c.get_offsets()) == 3]
    assert len(offsets) == 4
    result = study.values[0].result("held_out_loss")
    dots = sorted(float(x) for x, _ in offsets[0])
    expected = sorted(100 * seed / result.base_mean for seed in result.by_seed)
    assert dots == pytest.approx(expected)


@pytest.mark.parametrize("name", ["effects", "pareto"])
def test_figures_are_drawn_on_both_papers_and_both_widths(study, name):
    for theme in (LIGHT, DARK):
        for layout in (WIDE, NARROW):
            picture = render(study, name, theme, layout)
            assert picture.png.startswith(b"\x89PNG") and picture.width > 500


def test_the_frontier_holds_what_nothing_beats_in_both():
    points = [(4.0, 0.9), (1.0, 1.2), (2.0, 1.0), (3.0, 1.1), (2.0, 1.3)]
    assert [points[i] for i in frontier(points, lower_is_better=True)] == [
        (1.0, 1.2),
        (2.0, 1.0),
        (4.0, 0.9),
    ]
    assert [points[i] for i in frontier(points, lower_is_better=False)] == [(1.0, 1.2), (2.0, 1.3)]


def test_a_paired_curve_is_the_mean_over_seeds_with_their_band(study):
    pen = pen_for(study, LIGHT, WIDE)
    with drawing(LIGHT, WIDE):
        figure = draw_paired(pen)
    (axes,) = figure.axes
    seeds = [one.paired.smoothed for one in study.judged if one.run.value == "64"]
    assert len(seeds) == 3
    colour = to_rgba(pen.colours.of["64"])[:3]
    own = [one for one in axes.lines if to_rgba(one.get_color())[:3] == colour]
    line = max(own, key=lambda one: len(one.get_xdata()))  # another leads to its label
    assert np.asarray(line.get_ydata()) == pytest.approx(np.mean(seeds, axis=0))
    (band,) = (c for c in axes.collections if tuple(c.get_facecolor()[0][:3]) == colour)
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((np.min(seeds), np.max(seeds)))


def test_lines_of_other_seeds_are_left_out_where_their_noise_is_wider_than_the_panel(study):
    pen = pen_for(study, LIGHT, WIDE)
    red = to_rgba(LIGHT.base)[:3]
    drawn = {}
    for name, spread in (("narrow", 1e-4), ("wide", 1.0)):
        one = replace(study, floor=replace(study.floor, training_sd=spread))
        with drawing(LIGHT, WIDE):
            (axes,) = draw_paired(replace(pen, study=one)).axes
        lines = [line for line in axes.lines if to_rgba(line.get_color())[:3] == red]
        drawn[name] = sum(len(line.get_xdata()) > 10 for line in lines)
    assert drawn == {"narrow": 2, "wide": 0}


def test_time_stands_in_for_the_size_where_files_are_alike(study, tmp_path):
    assert chosen_cost(pen_for(study, LIGHT, WIDE))[0] == "LoRA file, MB"
    sweep = SweepBuilder(tmp_path / "alike", seed_spread=0.004, image_noise=0.0002)
    sweep.base(3).values("1", 3).values("3", 3, steps_per_epoch=16)
    alike = judge(load_sweep(sweep.write()))
    assert chosen_cost(pen_for(alike, LIGHT, WIDE))[0] == "time of a run, minutes"


@pytest.mark.parametrize("spread", [0.004, 0.0])
def test_the_band_of_another_seed_reaches_two_standard_deviations(spread, tmp_path):
    """Of the base's smoothed training loss; a band that would hide all is told as a number."""
    sweep = SweepBuilder(tmp_path / "sweep", seed_spread=0.0).base(3)
    sweep.values("2", 3, effect=0.2 if spread else 0.0005, spread=spread)
    study = judge(load_sweep(sweep.write()))
    losses = [run.metrics.column("loss/step") for run in study.sweep.base_runs]
    window = np.ones(5) / 5  # a twentieth of 80 steps, and the next odd number
    smoothed = np.stack([np.convolve(loss, window, "valid") for loss in losses])
    deviation = np.sqrt(smoothed.var(axis=0, ddof=1).mean())
    with drawing(LIGHT, WIDE):
        figure = draw_paired(pen_for(study, LIGHT, WIDE))
    (band,) = (patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle))
    low, high = band.get_y(), band.get_y() + band.get_height()
    assert high == pytest.approx(2 * deviation, rel=0.1) and low == pytest.approx(-high)
    told = [text.get_text() for text in figure.axes[0].texts if "noise" in text.get_text()]
    bottom, top = figure.axes[0].get_ylim()
    if spread:
        assert not told and bottom <= low and high <= top
    else:
        assert told == [f"another seed's noise: ±{high:.2g}, wider than this panel"]
        assert top < high


def test_a_gap_that_was_measured_at_the_end_alone_is_a_dot(study):
    with drawing(LIGHT, WIDE):
        figure = draw_held_out(pen_for(study, LIGHT, WIDE))
    *_, curve, gap = figure.axes
    assert gap.get_title(loc="left").startswith("Gap")
    dots = [line for line in gap.get_lines() if len(line.get_xdata()) == 1]
    assert len(dots) == len(study.values) + 1  # the values and the base
    assert {line.get_marker() for line in dots} == {"o"}
    assert not any(line.get_marker() == "o" for line in curve.get_lines())
