"""The picture of a grid: legible labels, a frame around the base, words for missing images."""

import numpy as np
import pytest
from PIL import Image

from lora_lab.sampling.layout import (
    NOTE,
    SHOWN_WIDTH,
    SMALLEST_SHOWN_TEXT,
    Cell,
    Column,
    Grid,
    Row,
    cell_factor,
    font,
    lay_out,
    wrap,
)
from lora_lab.sampling.picture import BASE_RED, draw_grid

RED = tuple(int(BASE_RED[i : i + 2], 16) for i in (1, 3, 5))
BLUE = Image.new("RGB", (64, 64), (0, 0, 255))


def grid(columns=10, labels=("2", "8", "16", "16", "32"), base=(2, 3), cell=None):
    cells = (cell or Cell(BLUE),) * columns
    return Grid(
        title="network.dim · simple prompt · pocket-graphic",
        facts=(("Prompt", "a portrait of zqx person " * 5), ("Negative", "none")),
        corner="network.dim",
        columns=tuple(Column(f"{i + 1} %", f"step {i}") for i in range(columns)),
        rows=tuple(
            Row(label, "base, seed 1" if index in base else "", cells, index in base)
            for index, label in enumerate(labels)
        ),
    )


@pytest.mark.parametrize("columns", [1, 2, 10, 40])
def test_the_smallest_letters_stay_legible_when_the_picture_is_shown_on_a_screen(columns):
    layout = lay_out(grid(columns))
    shown = layout.text * NOTE * min(1.0, SHOWN_WIDTH / layout.width)
    assert shown >= SMALLEST_SHOWN_TEXT - 0.5


@pytest.mark.parametrize("columns", [1, 2, 10, 40])
def test_column_labels_do_not_touch_each_other(columns):
    layout = lay_out(grid(columns))
    widest = font(layout.text, bold=True).getlength(f"{columns} %")
    assert layout.turned or widest <= layout.cell[0]


@pytest.mark.parametrize("count", [1, 3, 40])
def test_every_row_has_room_for_its_label(count):
    layout = lay_out(grid(40, labels=["optimizer.betas=[0.9,0.999]"] * count, base=(0,)))
    distances = np.diff(layout.row_tops)
    assert all(distances >= layout.row_height) and layout.height > layout.row_tops[-1]


def test_the_red_frame_holds_the_bases_rows_and_no_other():
    drawn = grid()
    layout = lay_out(drawn)
    pixels = np.asarray(draw_grid(drawn))
    right = layout.left + 10 * (layout.cell[0] + layout.gap)
    red = (pixels[:, right - layout.gap :] == RED).all(axis=2).any(axis=1)
    rows = np.flatnonzero(red)
    tops, height = layout.row_tops, layout.row_height
    assert tops[1] + height <= rows[0] < tops[2]
    assert tops[3] + height <= rows[-1] < tops[4]


def test_without_a_base_there_is_no_red():
    assert not (np.asarray(draw_grid(grid(base=()))) == RED).all(axis=2).any()


def test_images_stand_in_their_cells_undistorted():
    drawn = grid(2)
    layout = lay_out(drawn)
    pixels = np.asarray(draw_grid(drawn))
    for top in layout.row_tops:
        for index in range(2):
            left = layout.left + index * (layout.cell[0] + layout.gap)
            cell = pixels[top : top + layout.cell[1], left : left + layout.cell[0]]
            assert (cell == (0, 0, 255)).all()


def test_a_cell_without_an_image_says_why():
    told = np.asarray(draw_grid(grid(2, cell=Cell(None, "the image came out as NaN"))))
    silent = np.asarray(draw_grid(grid(2, cell=Cell(None, ""))))
    assert told.shape == silent.shape and (told != silent).any()


@pytest.mark.parametrize(("side", "factor"), [(32, 4), (64, 2), (128, 1), (200, 1), (768, 1 / 3)])
def test_small_images_are_enlarged_by_whole_factors_and_large_ones_reduced(side, factor):
    assert cell_factor(side, side // 2) == pytest.approx(factor)


def test_wrapping_loses_no_word_and_no_line_is_too_wide():
    letters = font(14)
    text = "a few words and a" + "verylongone" * 9
    lines = wrap(text, letters, 120)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(letters.getlength(line) <= 120 for line in lines)
