"""Effects and variance parts of seeds x clusters (lora_lab.statistics.crossed)."""

import numpy as np
import pytest

from lora_lab.statistics.crossed import (
    crossed_effects,
    measured_part,
    one_seed_effect,
    scale_of,
    stack,
    trend_table,
    trend_weights,
)


def table(seeds=5, clusters=12, seed=0.02, cluster=0.03, rest=0.01, values=1, draw=0):
    rng = np.random.default_rng(draw)
    return (
        seed * rng.normal(size=(values, seeds, 1))
        + cluster * rng.normal(size=(values, 1, clusters))
        + rest * rng.normal(size=(values, seeds, clusters))
    )


def test_mean_squares_are_those_of_a_two_way_analysis_of_variance():
    # The sums of squares by their definition, entry by entry.
    differences = table(4, 6)[0]
    seeds, clusters = differences.shape
    mean = differences.mean()
    of_seed, of_cluster = differences.mean(axis=1), differences.mean(axis=0)
    ms_seed = clusters * sum((one - mean) ** 2 for one in of_seed) / (seeds - 1)
    ms_cluster = seeds * sum((one - mean) ** 2 for one in of_cluster) / (clusters - 1)
    left = [
        (differences[s, c] - of_seed[s] - of_cluster[c] + mean) ** 2
        for s in range(seeds)
        for c in range(clusters)
    ]
    ms_rest = sum(left) / ((seeds - 1) * (clusters - 1))
    effects = crossed_effects(differences[None])
    entries = seeds * clusters
    assert effects.effect == pytest.approx(mean)
    assert effects.seed * entries == pytest.approx(ms_seed)
    assert effects.cluster * entries == pytest.approx(ms_cluster)
    assert effects.rest * entries == pytest.approx(ms_rest)
    assert effects.variance * entries == pytest.approx(
        max(ms_seed + ms_cluster - ms_rest, ms_seed, ms_cluster)
    )


def test_the_standard_error_is_that_of_the_mean_over_new_seeds_and_clusters():
    differences = np.stack([table(draw=draw)[0] for draw in range(4000)])
    effects = crossed_effects(differences)
    assert effects.variance.mean() == pytest.approx(effects.effect.var(), rel=0.1)


def test_the_standard_error_is_never_below_that_of_seeds_or_clusters_alone():
    effects = crossed_effects(table(3, 8, seed=0, cluster=0, rest=1, values=200))
    assert (effects.variance >= np.maximum(effects.seed, effects.cluster)).all()
    assert (effects.variance == np.maximum(effects.seed, effects.cluster)).any()


def test_degrees_of_freedom_go_from_those_of_the_seeds_to_those_of_the_clusters():
    of_seeds = crossed_effects(table(3, 24, seed=1, cluster=0, rest=0.001))
    of_clusters = crossed_effects(table(3, 24, seed=0, cluster=1, rest=0.001))
    assert of_seeds.df == pytest.approx(2, abs=0.1)
    assert of_clusters.df == pytest.approx(23, abs=0.5)


def test_identical_runs_have_no_error_and_divide_by_nothing():
    with np.errstate(all="raise"):
        effects = crossed_effects(np.zeros((1, 3, 5)))
        assert effects.identical.all() and effects.df > 0 and effects.standard_error == 0
        assert not crossed_effects(np.full((1, 3, 5), 0.1)).identical.any()
        assert crossed_effects(np.full((1, 3, 5), 0.1)).fixed.all()


@pytest.mark.parametrize("shape", [(1, 1, 5), (1, 3, 1)])
def test_one_seed_or_one_cluster_has_no_crossed_table(shape):
    with pytest.raises(ValueError, match="2 seeds and 2 clusters"):
        crossed_effects(np.zeros(shape))


def test_missing_seeds_are_left_out_before_missing_clusters():
    differences = table(3, 4)[0]
    differences[1] = np.nan
    differences[2, 3] = np.nan
    assert measured_part(differences) == pytest.approx(differences[[0, 2], :3])
    assert measured_part(np.full((2, 2), np.nan)).size == 0


def test_one_seed_pays_the_unpaired_spread_of_the_base():
    base_means = np.array([0.10, 0.12, 0.11])
    effects = one_seed_effect(np.array([0.01, 0.02, 0.03]), base_means)
    assert effects.effect == pytest.approx(0.02)
    assert effects.seed == pytest.approx(1e-4 * (1 + 1 / 3))
    assert effects.df_seed == 2 and effects.df_cluster == 2 and effects.seeds == 1
    with pytest.raises(ValueError, match="2 base runs"):
        one_seed_effect(np.array([0.01, 0.02]), base_means[:1])


def test_more_seeds_shrink_their_part_and_not_that_of_the_clusters():
    effects = crossed_effects(table(4, 12, seed=0.02, cluster=0.05, rest=0.001))
    more = effects.with_seeds(16)
    assert more.seed == pytest.approx(effects.seed / 4)
    assert more.cluster == pytest.approx(effects.cluster, rel=0.01)
    assert more.df_seed == 15
    same = effects.with_seeds(4)
    assert same.variance == pytest.approx(effects.variance)


def test_values_are_stacked_and_taken_in_order():
    one, other = crossed_effects(table(3, 5)), crossed_effects(table(4, 6, draw=1))
    both = stack([one, other])
    assert len(both) == 2
    assert list(both.seeds) == [3, 4]
    assert both.take([1]).effect == other.effect


def test_the_trend_of_a_straight_line_is_its_slope_and_that_of_two_runs_their_difference():
    assert trend_weights(np.array([4.0, 5.0])) == pytest.approx([-1, 1])
    weights = trend_weights(np.array([1.0, 3.0, 4.0, 5.0]))
    assert weights.sum() == pytest.approx(0) and (weights**2).sum() == pytest.approx(2)
    scores = np.array([1.0, 3.0, 4.0, 5.0])[:, None, None] * np.ones((4, 3, 2))
    assert trend_table(scores, np.array([1.0, 3.0, 4.0, 5.0])).shape == (3, 2)
    assert trend_table(scores, np.array([1.0, 3.0, 4.0, 5.0])).min() > 0
    # A bend without a trend is none.
    assert trend_table(
        np.array([1.0, 0.0, 1.0])[:, None, None] * np.ones((3, 2, 2)), np.arange(3.0)
    ) == pytest.approx(0)


def test_ranks_lie_on_a_scale_of_factors_and_shares_on_a_plain_one():
    assert scale_of(np.array([2.0, 8.0, 32.0])) == pytest.approx([1, 3, 5])
    assert scale_of(np.array([0.0, 0.05, 0.1])) == pytest.approx([0.0, 0.05, 0.1])
    assert scale_of(np.array([1.0, 2.0])) == pytest.approx([1.0, 2.0])
