"""avg@k and pass@k."""

from itertools import combinations

import numpy as np
import pytest

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.evaluation.statistics import paired_bootstrap, pass_at_k


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_pass_at_k_equals_trying_every_subset(n):
    for correct in range(n + 1):
        for k in range(1, n + 1):
            subsets = list(combinations(range(n), k))
            expected = sum(any(i < correct for i in subset) for subset in subsets) / len(subsets)
            assert pass_at_k(n, correct, k) == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_stays_exact_for_many_samples():
    assert pass_at_k(1000, 1, 1) == 0.001
    assert pass_at_k(10_000, 10, 5000) == pytest.approx(1 - 0.5**10, rel=0.01)


@pytest.mark.parametrize("arguments", [(4, 5, 1), (4, -1, 1), (4, 2, 5), (4, 2, 0)])
def test_pass_at_k_refusals(arguments):
    with pytest.raises(InputError, match="pass@k needs"):
        pass_at_k(*arguments)


def test_bootstrap_near_students_interval():
    differences = np.random.default_rng(0).normal(0.1, 1.0, 400)
    half = 1.96 * differences.std() / 20
    low, high = paired_bootstrap(differences)
    assert low == pytest.approx(differences.mean() - half, abs=0.01)
    assert high == pytest.approx(differences.mean() + half, abs=0.01)


def test_a_resample_of_clusters_equals_a_loop():
    differences, clusters = np.array([1.0, 2.0, 6.0, -1.0, 0.5]), np.array(["a", "a", "b", "c", "c"])
    counts = np.random.default_rng(3).multinomial(3, [1 / 3] * 3, 200)
    means = []
    for drawn in counts.tolist():
        values = [d for label, n in zip("abc", drawn, strict=True) for d in differences[clusters == label].tolist() * n]
        means.append(sum(values) / len(values))
    expected = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose(paired_bootstrap(differences, clusters, resamples=200, seed=3), expected)


def test_clusters_widen_the_interval_when_their_problems_are_alike():
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(30), 10)
    differences = rng.normal(size=30)[clusters] + 0.1 * rng.normal(size=300)
    alone, clustered = paired_bootstrap(differences), paired_bootstrap(differences, clusters)
    assert clustered.high - clustered.low > 2 * (alone.high - alone.low)


def test_bootstrap_covers_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        low, high = paired_bootstrap(rng.normal(0.2, 1, 60), resamples=500)
        hits += low <= 0.2 <= high
    assert 0.88 < hits / 200 < 0.985


def test_blocks_do_not_change_the_number_of_resamples(monkeypatch):
    differences = np.random.default_rng(3).normal(size=40)
    whole = paired_bootstrap(differences)
    monkeypatch.setattr("trimtab.evaluation.statistics_samples.BLOCK", 40 * 300)
    np.testing.assert_allclose(paired_bootstrap(differences), whole, atol=0.03)


def test_seeds():
    differences = np.random.default_rng(4).normal(size=40)
    assert paired_bootstrap(differences, seed=1) == paired_bootstrap(differences, seed=1)
    assert paired_bootstrap(differences, seed=1) != paired_bootstrap(differences, seed=2)


def test_bootstrap_refusals():
    with pytest.raises(NotEnoughDataError, match="got 1"):
        paired_bootstrap([0.1, 0.2], ["a", "a"])
    with pytest.raises(NotEnoughDataError, match="got 0"):
        paired_bootstrap([])
    with pytest.raises(InputError, match="finite"):
        paired_bootstrap([0.1, np.nan])
    with pytest.raises(InputError, match="one cluster each"):
        paired_bootstrap([0.1, 0.2], ["a"])
