"""Curves and replicates: what the study's figures are made of."""

import math

import numpy as np
import pytest

from lora_lab.statistics.curves import (
    last_finite,
    moving_average,
    paired_difference,
    pooled_sd,
    sample_sd,
    tail_mean,
)


def test_sample_sd_divides_by_one_less_than_the_count():
    assert sample_sd(np.array([1.0, 3.0])) == pytest.approx(math.sqrt(2))


def test_sample_sd_of_one_replicate_is_unknown():
    assert math.isnan(sample_sd(np.array([1.0])))
    assert math.isnan(sample_sd(np.array([1.0, np.nan])))


def test_pooled_sd_is_not_fooled_by_curves_that_cross():
    crossing = np.array([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]])
    assert sample_sd(crossing[:, 1]) == 0
    assert pooled_sd(crossing) == pytest.approx(math.sqrt(4 / 3))


def test_pooled_sd_without_shared_points_is_unknown():
    assert math.isnan(pooled_sd(np.array([[np.nan, 1.0], [1.0, np.nan]])))


def test_tail_mean_takes_the_last_share_without_the_unmeasured():
    assert tail_mean(np.array([9.0] * 8 + [1.0, np.nan]), 0.2) == 1.0
    assert math.isnan(tail_mean(np.zeros(0), 0.2))


def test_last_finite_skips_what_was_not_measured():
    assert last_finite(np.array([1.0, 2.0, np.nan, np.inf])) == 2.0
    assert math.isnan(last_finite(np.array([np.nan])))


def test_moving_average_keeps_a_straight_line_straight():
    line = np.arange(20.0)
    assert moving_average(line, 7) == pytest.approx(line)


def test_moving_average_with_window_one_changes_nothing():
    values = np.array([3.0, 1.0, 4.0])
    assert moving_average(values, 1) == pytest.approx(values)


def test_moving_average_leaves_the_unmeasured_out():
    smoothed = moving_average(np.array([1.0, np.nan, 3.0]), 3)
    assert smoothed[1] == 2.0


def test_moving_average_of_nothing_is_nothing():
    assert len(moving_average(np.zeros(0), 5)) == 0


def test_paired_difference_uses_only_points_that_both_measured():
    points, difference = paired_difference(
        np.array([1, 2, 3, 4]),
        np.array([1.0, 2.0, np.nan, 4.0]),
        np.array([2, 3, 4, 5]),
        np.array([0.5, 0.5, 0.5, 0.5]),
    )
    assert points.tolist() == [2, 4]
    assert difference.tolist() == [1.5, 3.5]
