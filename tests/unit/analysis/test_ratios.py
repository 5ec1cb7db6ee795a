"""Activation ratios against naive loops."""

from dataclasses import replace
from math import isclose, log

import numpy as np
import pytest

from trimtab.analysis import class_ratios, correct_halves, ratio_distribution
from trimtab.analysis.ratios import BIN, EDGES
from trimtab.errors import InputError, NotEnoughDataError
from trimtab.moments import Moments
from trimtab.ranking import class_moments

RNG = np.random.default_rng(0)


def labelled(n: int = 9) -> list[tuple[Moments, list[str], list[bool]]]:
    """Two parts of one recording, n traces of 2 layers of 5 neurons."""
    count = RNG.integers(2, 9, n)
    magnitude = RNG.gamma(2.0, size=(n, 2, 5)).astype(np.float32) * count[:, None, None]
    correct = [i % 2 == 0 for i in range(n)]
    whole = Moments(count, sum=magnitude, magnitude=magnitude)
    return [(whole.take(rows), [f"p{i // 2}" for i in rows], [correct[i] for i in rows]) for rows in (range(4), range(4, n))]


def test_the_distribution_is_that_of_a_loop() -> None:
    above, below = RNG.lognormal(0.1, 0.3, (3, 40)), RNG.lognormal(0.0, 0.3, (3, 40))
    found = ratio_distribution(above, below)
    ratios = sorted(a / b for a, b in zip(above.ravel(), below.ravel(), strict=True))
    for i, number in enumerate(found.counts):
        assert number == sum(EDGES[i] <= ratio < EDGES[i + 1] for ratio in ratios)
    assert found.n == sum(found.counts) + found.below + found.above == 120
    assert found.median == pytest.approx((ratios[59] + ratios[60]) / 2)
    assert found.share_above == sum(ratio > 1.15 for ratio in ratios) / 120
    fullest = max(range(len(found.counts)), key=lambda i: (found.counts[i], -abs(i - 35)))
    assert found.peak == pytest.approx((EDGES[fullest] * EDGES[fullest + 1]) ** 0.5)


def test_one_bin_is_centred_on_one() -> None:
    assert isclose(EDGES[35] * EDGES[36], 1.0)
    assert isclose(log(EDGES[36] / EDGES[35]), log(BIN))
    assert ratio_distribution(np.ones((1, 3)), np.ones((1, 3))).peak == pytest.approx(1.0)


def test_zeros_and_unknown_neurons_are_left_out_and_counted() -> None:
    above = np.array([[0.0, 2.0, 0.0, 3.0, np.nan, 1.0, 100.0]])
    below = np.array([[1.0, 0.0, 0.0, 2.0, 1.0, np.nan, 1.0]])
    found = ratio_distribution(above, below)
    assert (found.n, found.zero_above, found.zero_below, found.zero_both, found.unknown) == (2, 1, 1, 1, 2)
    assert (found.above, sum(found.counts)) == (1, 1)
    with pytest.raises(NotEnoughDataError, match="none of 2 neurons is active on both sides"):
        ratio_distribution(np.zeros((1, 2)), np.ones((1, 2)))
    with pytest.raises(InputError, match="never negative"):
        ratio_distribution(-np.ones((1, 2)), np.ones((1, 2)))


def test_halves_are_a_seeded_split_of_the_correct_traces() -> None:
    parts = labelled()
    halves = correct_halves(parts, 5, seed=4)
    rows = [m.mean_magnitude()[i] for m, _, correct in parts for i in range(len(correct)) if correct[i]]
    second = [i for i in range(5) if np.random.default_rng(4).permutation(5)[i] >= 3]
    assert (halves.n_first, halves.n_second) == (3, 2)
    np.testing.assert_allclose(halves.second, np.mean([rows[i] for i in second], axis=0), rtol=1e-6)
    np.testing.assert_allclose(halves.first, np.mean([rows[i] for i in range(5) if i not in second], axis=0), rtol=1e-6)


def test_halves_skip_experts_without_a_token() -> None:
    magnitude = np.array([[[2.0, 6.0]], [[0.0, 8.0]], [[4.0, 0.0]], [[1.0, 0.0]]], np.float32)
    count = np.array([[[2, 3]], [[0, 2]], [[2, 0]], [[1, 0]]])
    moments = Moments(count, sum=magnitude, magnitude=magnitude, tokens=np.array([5, 2, 2, 1]))
    halves = correct_halves([(moments, ["p"] * 4, [True] * 4)], 4, seed=0)
    in_second = np.random.default_rng(0).permutation(4) >= 2
    means = [[1.0, 2.0], [None, 4.0], [2.0, None], [1.0, None]]
    for side, found in ((False, halves.first), (True, halves.second)):
        for neuron in range(2):
            known = [
                row[neuron] for row, second in zip(means, in_second, strict=True) if second == side and row[neuron] is not None
            ]
            assert found[0, neuron] == pytest.approx(np.mean(known) if known else np.nan, nan_ok=True)


def test_another_number_of_correct_traces_is_refused() -> None:
    with pytest.raises(InputError, match="holds 5 correct traces where 6 were announced"):
        correct_halves(labelled(), 6)
    with pytest.raises(InputError, match="more than the 4 correct traces announced"):
        correct_halves(labelled(), 4)
    with pytest.raises(NotEnoughDataError, match="two traces or more, got 1"):
        correct_halves(labelled(), 1)


def test_both_distributions_of_a_contrast() -> None:
    parts = labelled()
    moments = class_moments(parts)
    ratios = class_ratios(moments, parts, seed=1)
    halves = correct_halves(parts, moments.n_correct, seed=1)
    assert ratios.across == ratio_distribution(moments.correct_magnitude, moments.incorrect_magnitude)
    assert ratios.within == ratio_distribution(halves.first, halves.second)
    assert ratios.to_json()["n_correct"] == 5
    with pytest.raises(InputError, match="record again with 'magnitude'"):
        class_ratios(replace(moments, correct_magnitude=None), parts)
