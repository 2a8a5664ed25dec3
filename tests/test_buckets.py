"""Buckets on tables that sd-scripts' BucketManager (February 2026) gave for the same sizes."""

import pytest

from lora_lab.data.buckets import (
    bucket_sizes,
    crop_at,
    nearest_bucket,
    place,
    place_without_upscale,
)

# 512 px, 256 to 1024, step 64.
KOHYA_512 = [
    *((256, 832), (256, 896), (256, 960), (256, 1024), (320, 704), (320, 768), (384, 640)),
    *((448, 576), (512, 512), (576, 448), (640, 384), (704, 320), (768, 320), (832, 256)),
    *((896, 256), (960, 256), (1024, 256)),
]
# (image, bucket, scaled) with these buckets.
KOHYA_PLACED = [
    ((1000, 1000), (512, 512), (512, 512)),
    ((640, 480), (576, 448), (597, 448)),
    ((1920, 1080), (640, 384), (683, 384)),
    ((800, 1200), (384, 640), (427, 640)),
    ((300, 500), (384, 640), (384, 640)),
    ((500, 333), (640, 384), (640, 426)),
    ((3000, 1000), (832, 256), (832, 277)),
    ((400, 2000), (256, 1024), (256, 1280)),
    ((511, 700), (448, 576), (448, 614)),
    ((70, 90), (448, 576), (448, 576)),
    ((4032, 3024), (576, 448), (597, 448)),
    ((1001, 749), (576, 448), (599, 448)),
    ((333, 777), (320, 768), (329, 768)),
]
# The same with bucket_no_upscale.
KOHYA_NO_UPSCALE = [
    ((1000, 1000), (512, 512), (512, 512)),
    ((640, 480), (512, 384), (512, 384)),
    ((1920, 1080), (640, 384), (683, 384)),
    ((800, 1200), (384, 576), (384, 576)),
    ((300, 500), (256, 448), (300, 500)),
    ((500, 333), (448, 320), (500, 333)),
    ((3000, 1000), (768, 256), (768, 256)),
    ((400, 2000), (192, 960), (192, 960)),
    ((511, 700), (384, 512), (384, 526)),
    ((70, 90), (64, 64), (70, 90)),
    ((4032, 3024), (512, 384), (512, 384)),
    ((1001, 749), (512, 384), (513, 384)),
    ((333, 777), (320, 768), (333, 777)),
]


def test_sd15_at_512_has_the_17_buckets_of_sd_scripts():
    assert bucket_sizes(512, 256, 1024, 64) == KOHYA_512


@pytest.mark.parametrize("limits", [(300, 1000), (256, 1023), (319, 961)])
def test_limits_between_steps_are_rounded_outwards_as_sd_scripts_does(limits):
    assert bucket_sizes(512, *limits, 64) == KOHYA_512


@pytest.mark.parametrize(
    ("resolution", "smallest", "largest", "step", "count"),
    [(768, 256, 2048, 64, 41), (64, 32, 128, 8, 17), (640, 320, 1536, 32, 41)],
)
def test_there_are_as_many_buckets_as_in_sd_scripts(resolution, smallest, largest, step, count):
    assert len(bucket_sizes(resolution, smallest, largest, step)) == count


@pytest.mark.parametrize(("image", "bucket", "scaled"), KOHYA_PLACED)
def test_an_image_goes_where_sd_scripts_puts_it(image, bucket, scaled):
    placement = place(*image, nearest_bucket(*image, KOHYA_512))
    assert (placement.bucket, placement.scaled) == (bucket, scaled)


@pytest.mark.parametrize(("image", "bucket", "scaled"), KOHYA_NO_UPSCALE)
def test_without_upscale_an_image_goes_where_sd_scripts_puts_it(image, bucket, scaled):
    placement = place_without_upscale(*image, 512, 64)
    assert (placement.bucket, placement.scaled) == (bucket, scaled)


@pytest.mark.parametrize("size", [(63, 900), (20, 20)])
def test_an_image_below_one_step_gets_a_bucket_without_area(size):
    assert 0 in place_without_upscale(*size, 512, 64).bucket


@pytest.mark.parametrize("resolution", [64, 512, 768])
def test_sides_are_multiples_of_the_step_and_areas_within_the_limit(resolution):
    step = resolution // 8
    sizes = bucket_sizes(resolution, resolution // 2, 2 * resolution, step)
    assert (resolution, resolution) in sizes
    assert all(w % step == 0 and h % step == 0 and w * h <= resolution**2 for w, h in sizes)


@pytest.mark.parametrize("size", [(640, 480), (31, 90), (64, 64), (1, 1), (65, 64)])
def test_a_placed_image_covers_its_bucket_and_is_cropped_at_its_centre(size):
    placement = place(*size, (64, 48))
    left, top, right, bottom = placement.crop
    width, height = placement.scaled
    assert placement.bucket == (64, 48)
    assert left >= 0 and top >= 0 and right <= width and bottom <= height
    assert abs(left - (width - right)) <= 1 and abs(top - (height - bottom)) <= 1
    assert width == 64 or height == 48


def test_random_crops_reach_both_edges_and_never_leave_the_image():
    crops = {crop_at((70, 48), (64, 48), (draw, draw)).crop for draw in range(100)}
    assert crops == {(left, 0, left + 64, 48) for left in range(7)}
