"""Images of every kind come out as the same 8-bit RGB."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lora_lab.data.buckets import Placement, crop_at
from lora_lab.data.concepts import is_image
from lora_lab.data.images import ColorChange, load_pixels, open_image, shrunk_by_area, upright
from lora_lab.data.masks import MaskFile, load_mask, mask_path, open_mask
from lora_lab.errors import LabError

GREY = np.tile(np.arange(0, 256, 16, dtype=np.uint8), (8, 1))  # (8, 16)


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(upright(path))


def test_16_bit_grey_keeps_its_range(tmp_path):
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "a.png")
    assert np.array_equal(pixels_of(tmp_path / "a.png")[..., 0], GREY)


def test_transparent_pixels_are_white_and_half_transparent_ones_lie_on_white(tmp_path):
    image = np.zeros((2, 2, 4), np.uint8)
    image[0, 1] = (200, 0, 0, 255)
    image[1, 0] = (0, 0, 0, 128)
    Image.fromarray(image).save(tmp_path / "a.png")
    seen = pixels_of(tmp_path / "a.png")
    assert seen[0, 0].tolist() == [255] * 3 and seen[0, 1].tolist() == [200, 0, 0]
    assert seen[1, 0].tolist() == [127] * 3


def test_a_palette_with_a_transparent_colour_lies_on_white(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "a.png", transparency=0)
    assert pixels_of(tmp_path / "a.png")[0].tolist() == [[255] * 3, [40, 50, 60]]


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    red, green, blue = pixels_of(tmp_path / "a.jpg")[8, 8]
    assert red > 240 and green < 15 and blue < 15


def test_of_an_animation_the_first_frame_is_read(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    open_image(tmp_path / "a.webp")
    assert pixels_of(tmp_path / "a.webp")[0, 0].tolist() == [255, 0, 0]


def test_exif_orientation_turns_the_image_and_its_size(tmp_path):
    image = Image.new("RGB", (32, 16), "white")
    image.paste("black", (0, 0, 8, 8))  # the corner at the top left
    exif = image.getexif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees to the right
    image.save(tmp_path / "a.png", exif=exif)
    assert open_image(tmp_path / "a.png").size == (16, 32)
    assert pixels_of(tmp_path / "a.png")[0, 15].tolist() == [0, 0, 0]


def test_a_colour_change_of_nothing_is_nothing_and_others_are_small(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    same = np.asarray(ColorChange(0, 1.0).apply(image), dtype=int)
    assert abs(same - np.asarray(image, dtype=int)).max() <= 6  # rounding of HSV
    changed = np.asarray(ColorChange(6, 1.05).apply(image), dtype=int)
    difference = abs(changed - np.asarray(image, dtype=int)).mean()
    assert 1 < difference < 20


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """An image of 64 x 32 with a mask whose left half is white."""
    Image.new("RGB", (64, 32), "red").save(tmp_path / "a.png")
    mask = np.zeros((32, 64), np.uint8)
    mask[:, :32] = 255
    Image.fromarray(mask).save(tmp_path / "a.mask.png")
    return tmp_path / "a.png"


def mask_of(picture: Path) -> MaskFile:
    path = mask_path(picture, picture.parent)
    assert path is not None
    return open_mask(path, open_image(picture))


def test_a_mask_goes_the_way_of_its_image(picture):
    whole = Placement((64, 32), (0, 0, 64, 32))
    weights = load_mask(mask_of(picture), whole, False, 8)
    assert weights.shape == (1, 4, 8) and weights[0, 0].tolist() == [1] * 4 + [0] * 4
    mirrored = load_mask(mask_of(picture), whole, True, 8)
    assert torch.equal(mirrored, weights.flip(-1))
    right = load_mask(mask_of(picture), crop_at((64, 32), (32, 32), (24, 0)), False, 8)
    assert right[0, 0].tolist() == [1, 0, 0, 0]
    half = load_mask(mask_of(picture), Placement((32, 16), (0, 0, 32, 16)), False, 4)
    assert half.shape == (1, 4, 8) and half.mean() == pytest.approx(0.5, abs=0.01)


def test_a_mask_covers_the_pixels_that_its_image_shows(picture):
    """Where the mask is white the picture is painted white, too: both must stay on one another."""
    with Image.open(picture) as image:
        painted = image.copy()
    painted.paste("white", (0, 0, 32, 32))
    painted.save(picture)
    placement = crop_at((80, 40), (64, 32), (9, 5))
    seen = load_pixels(picture, placement, flip=True)[:, 1:2]  # green: -1 red, 1 white
    weights = load_mask(mask_of(picture), placement, flip=True, latent_factor=1)
    assert (seen[0] / 2 + 0.5 - weights).abs().max() < 0.2


def test_avif_and_heic_are_read_as_phones_write_them(tmp_path):
    """Within the loss of their compression; HEIC by the package pillow-heif."""
    drawn = Image.new("RGB", (64, 32), "red")
    drawn.paste("blue", (32, 0, 64, 32))
    drawn.save(tmp_path / "a.avif", quality=95)
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(drawn).save(tmp_path / "a.HEIC", quality=95)
    for name in ("a.avif", "a.HEIC"):
        assert is_image(tmp_path / name)
        assert open_image(tmp_path / name).size == (64, 32)
        found = np.asarray(upright(tmp_path / name), dtype=int)
        assert np.abs(found[:, 4:28] - (255, 0, 0)).mean() < 8
        assert np.abs(found[:, 36:60] - (0, 0, 255)).mean() < 8


def test_heic_without_its_package_is_refused_with_the_way_out(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(LabError, match=r"a\.heic: \.heic needs the package pillow-heif"):
        open_image(tmp_path / "a.heic")


@pytest.mark.parametrize("size", [(32, 16), (37, 19), (64, 11), (1, 1)])
def test_a_smaller_image_is_the_mean_of_the_areas(size):
    """Each pixel by hand: every old pixel counts by the share of it that the new one covers."""
    old = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    made = np.asarray(shrunk_by_area(Image.fromarray(old), size), dtype=float)
    (width, height), by_hand = size, np.empty((size[1], size[0], 3))
    for y in range(height):
        for x in range(width):
            rows, columns = overlaps(y, 32 / height, 32), overlaps(x, 64 / width, 64)
            by_hand[y, x] = np.einsum("a,b,abc->c", rows, columns, old)
    assert np.abs(made - by_hand).max() <= 0.5 + 1e-9


def overlaps(index: int, length: float, count: int) -> np.ndarray:
    """How much of each of `count` old pixels lies in new pixel `index`, as a share of the new."""
    low, high = index * length, (index + 1) * length
    inside = [max(0.0, min(high, old + 1) - max(low, old)) for old in range(count)]
    return np.array(inside) / length


def test_the_filter_changes_smaller_images_alone(picture):
    noise = np.random.default_rng(0).integers(0, 256, (32, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(picture)

    def seen(size: tuple[int, int], name: str) -> torch.Tensor:
        return load_pixels(picture, crop_at(size, (16, 16), None), False, None, name)

    for size, same in (((32, 16), False), ((64, 32), True), ((80, 40), True)):
        assert torch.equal(seen(size, "area"), seen(size, "lanczos")) == same


def test_a_mask_of_another_size_is_refused_by_name(picture):
    Image.new("L", (32, 32)).save(picture.with_name("a.mask.png"))
    with pytest.raises(LabError, match=r"a\.mask\.png: the mask is 32x32, its image .* 64x32"):
        mask_of(picture)


def test_masks_may_lie_in_a_folder_of_their_own(tmp_path):
    image = tmp_path / "train" / "1_zqx" / "a.png"
    mask = tmp_path / "masks" / "1_zqx" / "a.png"
    mask.parent.mkdir(parents=True)
    mask.touch()
    assert mask_path(image, tmp_path) == mask
