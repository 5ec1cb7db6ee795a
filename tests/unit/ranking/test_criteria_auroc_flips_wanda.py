"""The criteria auroc, sign-flip and wanda, each against its definition."""

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ranking_samples import contrast, naive_class_moments, recording
from trimtab.errors import InputError, NotEnoughDataError
from trimtab.moments import Moments
from trimtab.ranking import class_moments, column_norms
from trimtab.ranking.criteria import auroc, sign_flip, wanda


@pytest.mark.parametrize("seed", range(3))
def test_auroc_equals_loops_over_pairs(seed):
    data = recording(seed, n=40)
    expected = naive_class_moments(data)
    distance = np.abs(expected["auroc"] - 0.5).ravel()
    ranking = auroc(class_moments([data], statistics=["auroc"]))
    np.testing.assert_allclose(ranking.score, distance[ranking.order], atol=1e-12)
    left_out = np.setdiff1d(np.arange(distance.size), ranking.order)
    np.testing.assert_allclose(distance[left_out], 0, atol=1e-12)


def test_auroc_by_hand():
    # problem a: correct 2 and 1 against incorrect 1, so one higher and one tie: 3/4; problem b: 0 against 5: 0. Mean 3/8.
    sums = np.array([2, 1, 1, 0, 5], np.float32).reshape(-1, 1, 1)
    moments = Moments(np.ones(5, np.int64), sums)
    ranking = auroc(class_moments([(moments, list("aaabb"), [True, True, False, True, False])], statistics=["auroc"]))
    assert ranking.score.tolist() == [0.125]


def test_a_hard_problem_does_not_masquerade_as_bad_reasoning():
    # the neuron is high on problem a, which is mostly solved, and tells nothing within a problem
    sums = np.array([9, 9, 9, 9, 1, 1, 1, 1], np.float32).reshape(-1, 1, 1)
    verdicts = [True, True, True, False, True, False, False, False]
    moments = class_moments([(Moments(np.ones(8, np.int64), sums), list("aaaabbbb"), verdicts)], statistics=["auroc"])
    assert moments.mean_difference[0, 0] == 4.0
    assert len(auroc(moments).order) == 0


def test_equal_scores_are_decided_by_the_difference():
    ranking = auroc(contrast([1.0, 3.0, -2.0, 5.0], np.zeros(4), auroc=[1.0, 0.75, 0.0, 0.5]))
    assert ranking.order.tolist() == [2, 0, 1]


def test_without_a_problem_that_has_both_verdicts():
    with pytest.raises(NotEnoughDataError, match="no problem has correct and incorrect ones"):
        auroc(contrast([1.0], [0.0], auroc=[np.nan], n_problems=0))


some_values = st.sampled_from([-2.0, -0.5, -1e-300, -0.0, 0.0, 1e-300, 0.5, 2.0])


@settings(deadline=None)
@given(hnp.arrays(np.float64, (2, 3, 4), elements=some_values))
def test_eligible_are_strictly_opposite_signs(pair):
    correct_mean, incorrect_mean = pair[0].ravel().tolist(), pair[1].ravel().tolist()
    flips = {i for i, (g, b) in enumerate(zip(correct_mean, incorrect_mean, strict=True)) if g > 0 > b or g < 0 < b}
    ranking = sign_flip(contrast(pair[0], pair[1]))
    assert set(ranking.order.tolist()) == flips
    assert ranking.score.tolist() == [1.0] * len(flips)


def test_the_order_does_not_depend_on_the_size_of_the_difference():
    rng = np.random.default_rng(0)
    correct_mean, sizes = rng.choice([-1.0, 1.0], (3, 50)), rng.random((3, 50)) + 0.1
    small = sign_flip(contrast(correct_mean, -correct_mean)).order
    np.testing.assert_array_equal(sign_flip(contrast(correct_mean * sizes, -correct_mean)).order, small)


def test_the_order_is_drawn_by_the_seed_and_favours_no_layer():
    moments = contrast(np.ones((4, 500)), -np.ones((4, 500)))
    first, again, other = (sign_flip(moments, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.order, again.order)
    assert first.order.tolist() != other.order.tolist()
    assert first.facts == {"seed": 1}
    # 200 of 2,000 by chance: 50 a layer, with a standard deviation of about 6
    assert np.bincount(first.order[:200] // 500).min() > 25


def test_a_neurons_draw_is_its_own_whichever_others_flip():
    correct_mean = np.ones((2, 20))
    whole = sign_flip(contrast(correct_mean, -correct_mean)).order
    some = contrast(correct_mean, np.where(np.arange(40).reshape(2, 20) % 3 == 0, -correct_mean, correct_mean))
    np.testing.assert_array_equal(sign_flip(some).order, [i for i in whole if i % 3 == 0])


def test_wanda_equals_loops_over_tokens_and_rows():
    rng = np.random.default_rng(0)
    data = recording(0)
    assert data.moments.square is not None
    down = {layer: rng.normal(size=(7, 6)).astype(np.float32) for layer in range(2)}
    down[1][:, 4] = 0
    scores = {}
    for layer in range(2):
        for index in range(6):
            tokens = sum(float(data.moments.square[i, layer, index]) for i in range(24) if data.correct[i])
            column = sum(float(down[layer][row, index]) ** 2 for row in range(7))
            if tokens * column > 0:
                scores[layer * 6 + index] = sqrt(tokens) * sqrt(column)
    ranking = wanda(contrast_of(data, down))
    assert ranking.order.tolist() == sorted(scores, key=lambda address: -scores[address])
    np.testing.assert_allclose(ranking.score, [scores[address] for address in ranking.order])


def contrast_of(data, down):
    return replace(class_moments([data]), column_norm=column_norms(down))


def test_missing_column_norms_say_where_they_come_from():
    with pytest.raises(InputError, match=r"reads 'column_norm'.*column_norms\(down_weights"):
        wanda(contrast([1.0], [0.0], correct_norm=[1.0]))
