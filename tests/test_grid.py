"""The picture of a grid: one size of letters, a frame around the base, words for missing images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lora_lab.config import PictureConfig
from lora_lab.images.fonts import Letters, font, runs
from lora_lab.sampling.grids.grid import Grid, GridCell, GridColumn, GridRow
from lora_lab.sampling.grids.layout import lay_out, pages
from lora_lab.sampling.grids.picture import BASE_RED, draw_grid, grid_key, write_grid

RED = tuple(int(BASE_RED[i : i + 2], 16) for i in (1, 3, 5))
PICTURE = PictureConfig(max_width=2400, max_height=6000, cell=None, formats=["png"])


@pytest.fixture(scope="module")
def blue(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "blue.png"
    Image.new("RGB", (64, 64), (0, 0, 255)).save(path)
    return path


def grid(columns=10, labels=("2", "8", "16", "16", "32"), base=(2, 3), cell=None, side=64):
    cells = (cell or GridCell(None, "x"),) * columns
    return Grid(
        title="network.dim · simple prompt · pocket-graphic",
        facts=(("Prompt", "a portrait of zqx person " * 5), ("Negative", "none")),
        corner="network.dim",
        columns=tuple(GridColumn(f"{i + 1} %", f"step {i}") for i in range(columns)),
        rows=tuple(
            GridRow(label, "base, seed 1" if index in base else "", cells, index in base)
            for index, label in enumerate(labels)
        ),
        image_size=(side, side),
    )


def ink_height(picture):
    """Pixels from top to bottom of the title's letters, the first dark rows."""
    dark = (np.asarray(picture.convert("L")) < 100).any(axis=1)
    first = int(np.flatnonzero(dark)[0])
    return int(np.flatnonzero(~dark[first:])[0])


def test_letters_have_one_size_with_2_small_columns_and_with_30_large_ones():
    small = draw_grid(pages(grid(2, side=64), PICTURE)[0], PICTURE)
    large = draw_grid(pages(grid(30, side=768), PICTURE)[0], PICTURE)
    assert ink_height(small) == ink_height(large) >= 20
    assert small.width < 1000 and 2000 < large.width <= 2400  # at least 10 px on 1200


@pytest.mark.parametrize(("columns", "rows", "side"), [(2, 3, 64), (30, 4, 768), (5, 80, 512)])
def test_no_page_is_larger_than_allowed_and_nothing_is_lost(columns, rows, side):
    labels = [str(i) for i in range(rows)]
    parts = pages(grid(columns, labels, base=(1, 2), side=side), PICTURE)
    for part in parts:
        layout = lay_out(part, PICTURE)
        assert layout.width <= 2400 and layout.height <= 6000
    assert sum(len(part.rows) * len(part.columns) for part in parts) == rows * columns
    assert all(f"page {n} of {len(parts)}" in p.title for n, p in enumerate(parts, 1) if parts[1:])


def test_all_seeds_of_the_base_stay_on_one_page():
    labels = [str(i) for i in range(12)]
    config = replace(PICTURE, max_height=1500)
    for first in range(9):
        parts = pages(grid(4, labels, base=(first, first + 1, first + 2)), config)
        assert len(parts) > 1
        counts = [sum(row.is_base for row in part.rows) for part in parts]
        assert sorted(counts)[-1] == 3 == sum(counts)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_every_row_has_room_for_its_label(count):
    layout = lay_out(grid(20, labels=["optimizer.betas=[0.9,0.999]"] * count, base=(0,)), PICTURE)
    distances = np.diff(layout.row_tops)
    assert all(distances >= layout.row_height) and layout.height > layout.row_tops[-1]


def test_the_red_frame_holds_the_bases_rows_and_no_other():
    drawn = grid()
    layout = lay_out(drawn, PICTURE)
    pixels = np.asarray(draw_grid(drawn, PICTURE))
    right = layout.column_lefts[-1] + layout.cell[0]
    red = (pixels[:, right + 2 :] == RED).all(axis=2).any(axis=1)
    rows = np.flatnonzero(red)
    tops, height = layout.row_tops, layout.row_height
    assert tops[1] + height <= rows[0] < tops[2]
    assert tops[3] + height <= rows[-1] < tops[4]


def test_the_base_as_columns_gets_the_frame_too():
    drawn = grid(3, base=())
    columns = tuple(replace(c, is_base=i == 1) for i, c in enumerate(drawn.columns))
    drawn = replace(drawn, columns=columns)
    layout = lay_out(drawn, PICTURE)
    pixels = np.asarray(draw_grid(drawn, PICTURE))
    red = np.flatnonzero((pixels[layout.row_tops[0] + 5] == RED).all(axis=1))
    assert layout.column_lefts[0] + layout.cell[0] <= red[0] < layout.column_lefts[1]
    assert layout.column_lefts[1] + layout.cell[0] <= red[-1] < layout.column_lefts[2]


def test_without_a_base_there_is_no_red():
    assert not (np.asarray(draw_grid(grid(base=()), PICTURE)) == RED).all(axis=2).any()


def test_images_stand_in_their_cells_undistorted(blue):
    drawn = grid(2, cell=GridCell(blue, score="0.82"))
    layout = lay_out(drawn, PICTURE)
    pixels = np.asarray(draw_grid(drawn, PICTURE))
    for top in layout.row_tops:
        for left in layout.column_lefts:
            cell = pixels[top : top + layout.cell[1], left : left + layout.cell[0]]
            assert (cell == (0, 0, 255)).all()
            right = left + layout.cell[0]
            below = pixels[top + layout.cell[1] + 1 : top + layout.row_height, left:right]
            assert (below < 100).any(), "the score stands under the image"


def test_a_cell_without_an_image_says_why(tmp_path):
    told = np.asarray(draw_grid(grid(2, cell=GridCell(None, "the image came out as NaN")), PICTURE))
    silent = np.asarray(draw_grid(grid(2, cell=GridCell(None, "")), PICTURE))
    assert told.shape == silent.shape and (told != silent).any()
    gone = np.asarray(draw_grid(grid(2, cell=GridCell(tmp_path / "gone.png")), PICTURE))
    assert (gone != silent).any()


@pytest.mark.parametrize(
    ("side", "columns", "cell"), [(64, 10, 128), (64, 2, 256), (32, 9, 128), (768, 4, 384)]
)
def test_small_images_are_enlarged_by_whole_factors_and_large_ones_reduced(side, columns, cell):
    assert lay_out(grid(columns, side=side), PICTURE).cell == (cell, cell)


def test_wrapping_loses_no_sign_and_no_line_is_too_wide():
    letters = Letters(14)
    for text in (
        "a few words and a" + "verylongone" * 9,
        "笑顔の肖像、青い背景" * 5 + " and words",
    ):
        lines = letters.wrap(text, 120)
        assert len(lines) > 3
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
        assert all(letters.width(line) <= 120 for line in lines)
    assert letters.wrap("word " * 5000, 200, 3)[2].endswith("…")


@pytest.mark.parametrize(
    "text",
    [
        "ÄÖß ≥ ×",
        "صورة شخص يبتسم",
        "תמונה של אדם",
        "笑顔の肖像",
        "微笑的人",
        "파란 배경",
        "Кириллица",
    ],
)
def test_prompts_of_many_scripts_are_drawn_and_no_box_stands_for_a_letter(text):
    for face, part in runs(text):
        letters = font(face, 24)
        boxes = {bytes(letters.getmask("\uffff")), bytes(letters.getmask("\U0010fffd"))}
        for sign in part:
            if not sign.isspace():
                assert bytes(letters.getmask(sign)) not in boxes, sign


def test_right_to_left_text_is_shaped_and_read_from_the_right():
    def columns(text):
        picture = Image.new("L", (400, 40), 255)
        Letters(24).draw(ImageDraw.Draw(picture), (5, 2), text, "black")
        return (np.asarray(picture) < 128).any(axis=0)

    joined = Letters(24).width("سلام")
    apart = sum(Letters(24).width(sign) for sign in "سلام")
    assert joined < 0.9 * apart, "letters take their joined forms"
    # In "אבג 漢" the line begins at its right end, so the Chinese sign stands on the left.
    order = [part for _, part in runs("אבג 漢")]
    assert order[0] == "漢" and columns("אבג 漢").any()


def test_a_sign_that_no_font_has_is_spelled():
    assert [part for _, part in runs("\U00012000")] == ["[U+12000]"]


def test_a_grid_that_is_there_is_not_drawn_again(tmp_path, blue):
    path = tmp_path / "grid.png"
    drawn = grid(2, cell=GridCell(blue, key="a"))
    both = replace(PICTURE, formats=["png", "webp"])
    assert write_grid(path, drawn, both) and not write_grid(path, drawn, both)
    with Image.open(path) as png, Image.open(path.with_suffix(".webp")) as webp:
        assert png.size == webp.size and webp.format == "WEBP"
    other = replace(drawn, rows=drawn.rows[:-1])
    assert grid_key(path) == drawn.key() != other.key()
    assert write_grid(path, other, both)
    assert grid(2, cell=GridCell(blue, key="b")).key() != drawn.key()
    assert grid(2, cell=GridCell(Path("elsewhere") / blue.name, key="a")).key() == drawn.key()
