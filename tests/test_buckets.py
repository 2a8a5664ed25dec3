import pytest

from lora_lab.data.buckets import bucket_sizes, nearest_bucket, place


def test_sd15_at_512_has_the_17_buckets_of_sd_scripts():
    assert len(bucket_sizes(512, 256, 1024, 64)) == 17


@pytest.mark.parametrize("resolution", [64, 512, 768])
def test_sides_are_multiples_of_the_step_and_areas_within_the_limit(resolution):
    step = resolution // 8
    sizes = bucket_sizes(resolution, resolution // 2, 2 * resolution, step)
    assert (resolution, resolution) in sizes
    assert all(w % step == 0 and h % step == 0 and w * h <= resolution**2 for w, h in sizes)


def test_square_images_go_to_the_square_bucket():
    sizes = bucket_sizes(64, 32, 128, 16)
    assert nearest_bucket(1000, 1000, sizes) == (64, 64)


def test_nearest_bucket_has_the_nearest_ratio():
    sizes = [(64, 64), (80, 48), (48, 80)]
    assert nearest_bucket(160, 100, sizes) == (80, 48)
    assert nearest_bucket(30, 50, sizes) == (48, 80)


@pytest.mark.parametrize("size", [(640, 480), (31, 90), (64, 64), (1, 1), (65, 64)])
def test_a_placed_image_covers_its_bucket_and_is_cropped_at_its_centre(size):
    placement = place(*size, (64, 48))
    left, top, right, bottom = placement.crop
    width, height = placement.scaled
    assert placement.bucket == (64, 48)
    assert left >= 0 and top >= 0 and right <= width and bottom <= height
    assert abs(left - (width - right)) <= 1 and abs(top - (height - bottom)) <= 1
    assert width == 64 or height == 48
