"""Pairing the scores of two runs (lora_lab.statistics.paired)."""

import math

import pytest

from lora_lab.statistics.paired import cluster_means, mean_of, mean_scores, paired_clusters


def test_pairs_are_the_units_that_both_measured():
    value = {("a", "1"): 3.0, ("a", "2"): 9.0, ("b", "1"): 5.0}
    base = {("a", "1"): 1.0, ("c", "1"): 2.0}
    assert paired_clusters(value, base) == {"a": 2.0}


def test_the_mean_over_runs_holds_what_all_of_them_measured():
    runs = [{("a", "1"): 1.0, ("b", "1"): 9.0}, {("a", "1"): 3.0}]
    assert mean_scores(runs) == {("a", "1"): 2.0}
    assert mean_scores([]) == {}


def test_every_cluster_weighs_the_same_and_what_is_not_finite_is_left_out():
    scores = {("a", "1"): 1.0, ("a", "2"): 3.0, ("b", "1"): 6.0, ("b", "2"): math.nan}
    assert cluster_means(scores) == {"a": 2.0, "b": 6.0}
    assert mean_of(scores) == pytest.approx(4.0)
    assert math.isnan(mean_of({}))
