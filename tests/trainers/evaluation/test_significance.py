"""Intervals and tests of significance: against closed forms, against scipy, and how often they are right."""

import numpy as np
import pytest
from scipy import sparse, stats

from pipeline.errors import UserError
from trainers.evaluation import significance


def run(realistic, direction=None):
    count = len(realistic)
    return {
        "head": np.arange(count),
        "relation": np.zeros(count, dtype=int),
        "tail": np.arange(count)[::-1],
        "direction": np.array(direction or ["tail"] * count),
        "realistic": np.asarray(realistic, dtype=float),
    }


def random_run(count=400, seed=0):
    return run(np.random.default_rng(seed).integers(1, 30, count))


def test_the_interval_of_hits_is_that_of_a_binomial():
    found = significance.intervals(random_run(2000), ["hits_at_3"], samples=4000)["hits_at_3"]
    share = (random_run(2000)["realistic"] <= 3).mean()
    expected = stats.binom(2000, share).ppf([0.025, 0.975]) / 2000
    np.testing.assert_allclose(found, expected, atol=0.003)


def test_intervals_hold_the_true_value_about_as_often_as_they_say():
    truth = (1 / np.arange(1, 30)).mean()
    inside = 0
    for seed in range(200):
        low, high = significance.intervals(random_run(300, seed + 10), ["mrr"], samples=300, seed=seed)["mrr"]
        inside += low <= truth <= high
    assert 180 <= inside <= 199  # 95 % of 200, give or take three standard deviations


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    first, again, other = (significance.intervals(random_run(), samples=200, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_blocks_of_resamples_do_not_matter(monkeypatch):
    expected = significance.bootstrap_means(random_run()["realistic"], samples=50, seed=3)
    monkeypatch.setattr(significance, "_DRAWN_AT_ONCE", 400 * 7)
    np.testing.assert_array_equal(significance.bootstrap_means(random_run()["realistic"], samples=50, seed=3), expected)


def test_every_resample_draws_as_many_queries_as_there_are():
    for weights in significance.resamples(50, 20, seed=0):
        np.testing.assert_array_equal(weights.sum(axis=1), 50)
        assert (weights == 0).any()


def test_groups_are_resampled_together_and_averaged_apart():
    values = np.array([1.0, 1.0, 5.0, 7.0])
    groups = sparse.csr_array(np.array([[1, 0, 1], [1, 0, 1], [0, 1, 1], [0, 1, 1]]))
    means = significance.bootstrap_means(values, groups, samples=500)[:, :, 0]
    assert set(means[~np.isnan(means[:, 0]), 0]) == {1.0}
    assert set(np.unique(means[~np.isnan(means[:, 1]), 1])) >= {5.0, 6.0, 7.0}
    assert means[:, 2].mean() == pytest.approx(3.5, abs=0.25)


def test_a_group_that_no_resample_drew_has_no_interval():
    low, high = significance.percentile_interval(np.array([[np.nan, 1.0], [np.nan, 3.0]]), 0.5)
    np.testing.assert_array_equal(low, [np.nan, 1.5])
    np.testing.assert_array_equal(high, [np.nan, 2.5])


def test_the_permutation_test_agrees_with_scipy():
    generator = np.random.default_rng(0)
    differences = generator.normal(0.2, 1, 60)
    found = significance.permutation_test(differences, samples=20_000)[0]
    expected = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=20_000, rng=1)
    assert found == pytest.approx(expected.pvalue, abs=0.015)


def test_a_chance_difference_is_called_significant_as_rarely_as_it_should():
    p = [
        significance.permutation_test(np.random.default_rng(seed).normal(0, 1, 50), samples=400, seed=seed)[0]
        for seed in range(300)
    ]
    assert 4 <= (np.array(p) <= 0.05).sum() <= 27  # 15 expected, three standard deviations
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_a_better_run_is_seen_to_be_better():
    a = random_run()
    b = run(a["realistic"] + (np.arange(400) % 3 == 0))
    found = significance.compare(a, b, samples=2000)
    assert (found["queries"], found["better"], found["equal"], found["worse"]) == (400, 134, 266, 0)
    assert found["mrr"]["difference"] == pytest.approx((1 / a["realistic"] - 1 / b["realistic"]).mean())
    assert found["mrr"]["interval"][0] > 0
    assert found["mrr"]["p"] == pytest.approx(1 / 2001)
    assert found["wilcoxon"] < 1e-10
    assert found["hits_at_3"]["a"] == (a["realistic"] <= 3).mean()


def test_a_run_does_not_differ_from_itself():
    found = significance.compare(random_run(), random_run(), samples=100)
    assert found["equal"] == 400
    assert found["mrr"]["interval"] == [0, 0]
    assert found["mrr"]["p"] == found["wilcoxon"] == 1


def test_runs_are_paired_by_query_and_not_by_row():
    a = random_run()
    order = np.random.default_rng(5).permutation(400)
    shuffled = {name: column[order] for name, column in a.items()}
    assert significance.compare(a, shuffled, samples=50)["equal"] == 400


def test_runs_on_different_queries_are_refused():
    a, b = random_run(), random_run()
    b["tail"] = b["tail"] + 1
    with pytest.raises(UserError, match="0 in common"):
        significance.compare(a, b)
    with pytest.raises(UserError, match="400 and 399"):
        significance.compare(a, {name: column[:-1] for name, column in a.items()})


def test_over_seeds_gives_mean_and_sample_deviation():
    names = ("mrr", "mr", "hits_at_1", "hits_at_3", "hits_at_5", "hits_at_10", "hits_at_100", "amri")
    runs = [dict.fromkeys(names, value) for value in (0.1, 0.2, 0.6)]
    found = significance.over_seeds(runs)["mrr"]
    assert found == {"mean": pytest.approx(0.3), "deviation": pytest.approx(np.std([0.1, 0.2, 0.6], ddof=1)), "runs": 3}
    assert significance.over_seeds(runs[:1])["mrr"]["deviation"] is None
    with pytest.raises(ValueError, match="no runs"):
        significance.over_seeds([])
