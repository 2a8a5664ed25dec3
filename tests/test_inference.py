"""Clustered bootstrap, Holm, floor and detectable difference, on data whose truth is known."""

import math

import numpy as np
import pytest
from scipy import stats

from lora_lab.statistics.paired import (
    cluster_bootstrap,
    detectable_difference,
    floor_factor,
    holm,
    holm_levels,
    mean_scores,
    paired_clusters,
)


def coverage(simulations: int, clusters: int, units: int, skewed: bool) -> float:
    """Share of studies whose 95 % interval holds the true difference of 0.3.

    Differences of one prompt share a prompt effect and have noise of their own, as images do.
    """
    rng = np.random.default_rng([clusters, units, skewed])
    shape = (simulations, clusters)
    shared = rng.exponential(size=shape) - 1 if skewed else rng.normal(size=shape)
    own = rng.normal(size=(*shape, units)).mean(axis=2)
    differences = 0.3 + shared + own
    boot = cluster_bootstrap(differences)
    width = boot.half_width(np.full(simulations, 0.05))
    return float(np.mean(np.abs(boot.mean - 0.3) <= width))


@pytest.mark.slow
@pytest.mark.parametrize("skewed", [False, True], ids=["normal", "skewed"])
@pytest.mark.parametrize(("clusters", "units"), [(8, 5), (10, 3), (12, 4)])
def test_the_interval_covers_the_truth_in_93_to_97_percent_of_1000_studies(clusters, units, skewed):
    assert 0.93 <= coverage(1000, clusters, units, skewed) <= 0.97


def test_the_interval_covers_the_truth_in_300_small_studies():
    assert 0.91 <= coverage(300, 8, 3, skewed=False) <= 0.985


def test_treating_images_as_independent_would_cover_too_little():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(200, 8, 1))
    images = (shared + 0.1 * rng.normal(size=(200, 8, 4))).reshape(200, 32)
    boot = cluster_bootstrap(images)
    covered = np.abs(boot.mean) <= boot.half_width(np.full(200, 0.05))
    assert covered.mean() < 0.8


def test_the_bootstrap_agrees_with_students_t_on_many_normal_clusters():
    rng = np.random.default_rng(1)
    differences = rng.normal(0.2, 1, size=(3, 60))
    boot = cluster_bootstrap(differences)
    expected = stats.ttest_1samp(differences, 0, axis=1)
    assert boot.p == pytest.approx(expected.pvalue, abs=0.02)
    low, high = expected.confidence_interval(0.95)
    assert boot.half_width(np.full(3, 0.05)) == pytest.approx((high - low) / 2, rel=0.05)


def test_equal_differences_have_no_width_and_none_at_all_is_no_difference():
    boot = cluster_bootstrap(np.array([[0.1] * 6, [0.0] * 6]))
    assert boot.half_width(np.array([0.05, 0.05])).tolist() == [0.0, 0.0]
    assert boot.p[0] < 0.001 and boot.p[1] == 1.0


def test_too_few_clusters_give_an_infinite_interval():
    boot = cluster_bootstrap(np.array([[0.1, 0.2, 0.4]]))
    assert math.isinf(boot.half_width(np.array([0.05]))[0])


def test_the_interval_excludes_zero_exactly_where_holm_rejects():
    rng = np.random.default_rng(2)
    for _ in range(20):
        boot = cluster_bootstrap(rng.normal(rng.uniform(0, 1, (6, 1)), 1, (6, 10)))
        excludes = np.abs(boot.mean) > boot.half_width(holm_levels(boot.p))
        assert excludes.tolist() == (holm(boot.p) <= 0.05).tolist()


def test_holm_adjusts_as_in_r():
    # R 4.3: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_pairs_leave_out_what_one_of_them_lacks():
    value = {("a", "1"): 3.0, ("a", "2"): 9.0, ("b", "1"): 1.0}
    base = {("a", "1"): 1.0, ("b", "1"): math.nan, ("c", "1"): 0.0}
    assert paired_clusters(value, base) == {"a": 2.0}


def test_the_mean_over_the_seeds_takes_what_all_of_them_measured():
    runs = [{("a", "1"): 1.0, ("b", "1"): 5.0}, {("a", "1"): 3.0}]
    assert mean_scores(runs) == {("a", "1"): 2.0}


@pytest.mark.parametrize(("seeds", "factor"), [(2, 15.56), (3, 4.968), (5, 3.041), (10, 2.373)])
def test_the_floor_factor_is_students_prediction_interval(seeds, factor):
    # t(0.975; n - 1) of a printed table (12.706, 4.303, 2.776, 2.262) times sqrt(1 + 1/n)
    assert floor_factor(seeds) == pytest.approx(factor, rel=1e-3)


def false_rates(seeds: int, studies: int = 20_000) -> tuple[float, float]:
    """Share of identical runs called different: by twice the deviation, and by the factor."""
    rng = np.random.default_rng(seeds)
    base = rng.normal(size=(studies, seeds))
    value = rng.normal(size=studies)
    sd = base.std(axis=1, ddof=1)
    twice = np.abs(value - base[:, 0]) > 2 * sd
    factor = np.abs(value - base.mean(axis=1)) > floor_factor(seeds) * sd
    return float(twice.mean()), float(factor.mean())


@pytest.mark.parametrize(("seeds", "by_twice"), [(2, 0.37), (3, 0.27), (5, 0.22)])
def test_the_factor_holds_five_percent_where_twice_the_deviation_does_not(seeds, by_twice):
    twice, factor = false_rates(seeds)
    assert twice == pytest.approx(by_twice, abs=0.02)
    assert factor == pytest.approx(0.05, abs=0.006)


def test_the_detectable_difference_is_shown_four_times_in_five():
    rng = np.random.default_rng(3)
    sd, error, seeds, limit = 0.02, 0.01, 3, 0.08
    true = detectable_difference(limit, error, sd, seeds)
    spread = math.sqrt(error**2 + sd**2 * (1 + 1 / seeds))
    shown = true + rng.normal(0, spread, 20_000) > limit
    assert shown.mean() == pytest.approx(0.8, abs=0.01)
