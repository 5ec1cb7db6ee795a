"""AUROC and its intervals against loops over pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.stats.auroc import auroc, delong, delong_difference, delong_interval


def wins(a: float, b: float) -> float:
    return 1.0 if a > b else 0.5 if a == b else 0.0


def naive_auroc(positive: list[bool], score: list[float]) -> float:
    ups = [s for s, p in zip(score, positive, strict=True) if p]
    downs = [s for s, p in zip(score, positive, strict=True) if not p]
    return sum(wins(a, b) for a in ups for b in downs) / (len(ups) * len(downs))


def naive_covariance(positive: list[bool], first: list[float], second: list[float]) -> float:
    total = 0.0
    for label in (True, False):
        placements = []
        for score in (first, second):
            own = [s for s, p in zip(score, positive, strict=True) if p == label]
            others = [s for s, p in zip(score, positive, strict=True) if p != label]
            placements.append([sum(wins(a, b) if label else wins(b, a) for b in others) / len(others) for a in own])
        means = [sum(values) / len(values) for values in placements]
        products = [(a - means[0]) * (b - means[1]) for a, b in zip(*placements, strict=True)]
        total += sum(products) / (len(products) - 1) / len(products)
    return total


def cases(seed: int, n: int = 40, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.4
    scores = rng.normal(size=(2, n)) + np.array([[1.0], [0.5]]) * positive + rng.normal(size=n)
    return positive, np.round(scores, 1 if ties else 12)


labelled = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


@settings(deadline=None)
@given(labelled)
def test_auroc_equals_counting_pairs(rows):
    positive, score = [label for label, _ in rows], [float(value) for _, value in rows]
    assert auroc(positive, score) == pytest.approx(naive_auroc(positive, score), abs=1e-12)
    assert auroc(positive, score) + auroc(positive, [-value for value in score]) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_delong_equals_loops_over_placements(seed):
    positive, scores = cases(seed)
    estimate = delong(positive, scores)
    for i in range(2):
        assert estimate.auroc[i] == pytest.approx(naive_auroc(positive.tolist(), scores[i].tolist()))
        for j in range(2):
            expected = naive_covariance(positive.tolist(), scores[i].tolist(), scores[j].tolist())
            assert estimate.covariance[i, j] == pytest.approx(expected)


def test_delong_equals_the_bootstrap_roughly():
    positive, scores = cases(5, n=300, ties=False)
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(positive == label) for label in (True, False)]
    draws = [np.concatenate([rng.choice(group, len(group)) for group in members]) for _ in range(2000)]
    resampled = np.array([[auroc(positive[draw], score[draw]) for draw in draws] for score in scores])
    for i in range(2):
        interval = delong_interval(positive, scores[i])
        np.testing.assert_allclose(interval, np.quantile(resampled[i], [0.025, 0.975]), atol=0.012)
    interval = delong_difference(positive, scores[0], scores[1])
    np.testing.assert_allclose(interval, np.quantile(resampled[0] - resampled[1], [0.025, 0.975]), atol=0.012)


def test_delong_interval_covers_about_as_often_as_it_says():
    # two normals one apart: the true AUROC is Phi(1 / sqrt(2)) = 0.7602
    rng = np.random.default_rng(0)
    positive = np.repeat([True, False], 60)
    hits = 0
    for _ in range(300):
        low, high = delong_interval(positive, rng.normal(size=120) + positive)
        hits += low <= 0.7602 <= high
    assert 0.91 < hits / 300 < 0.985


def test_perfect_separation_is_no_certainty():
    positive = np.repeat([True, False], 5)
    low, high = delong_interval(positive, np.arange(10, 0, -1))
    assert high == 1.0
    assert 0.5 < low < 0.8
    # Newcombe's equation holds at the limit: (1 - theta)^2 = z^2 V(theta), with N* = 5
    inflation = 1 + 4 * ((1 - low) / (2 - low) + low / (1 + low))
    assert (1 - low) ** 2 == pytest.approx(1.959964**2 * low * (1 - low) * inflation / 25, rel=1e-5)
    assert delong_interval(positive, np.arange(10)) == pytest.approx((0.0, 1 - low))
    assert delong_interval(np.repeat([True, False], 500), np.arange(1000, 0, -1)).low > 0.99


def test_a_constant_score_is_a_coin():
    assert auroc([True, False, True], [1.0, 1.0, 1.0]) == 0.5


def test_refusals():
    with pytest.raises(NotEnoughDataError, match="0 positive and 3 negative"):
        auroc([False] * 3, [1.0, 2.0, 3.0])
    with pytest.raises(NotEnoughDataError, match="at least 2"):
        delong([True, False, False], [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="1 scores are NaN"):
        auroc([True, False], [np.nan, 1.0])
    with pytest.raises(InputError, match="bool labels"):
        auroc([1, 0], [0.2, 0.1])
    with pytest.raises(InputError, match="bool labels"):
        auroc([True, False], [0.2, 0.1, 0.3])
