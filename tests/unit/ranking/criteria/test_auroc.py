"""How well a neuron separates the verdicts of one problem."""

import numpy as np
import pytest

from ranking_samples import contrast, naive_class_moments, recording
from trimtab.errors import NotEnoughDataError
from trimtab.moments import Moments
from trimtab.ranking import class_moments
from trimtab.ranking.criteria import auroc


@pytest.mark.parametrize("seed", range(3))
def test_equals_loops_over_pairs(seed):
    data = recording(seed, n=40)
    expected = naive_class_moments(data)
    distance = np.abs(expected["auroc"] - 0.5).ravel()
    ranking = auroc.score(class_moments([data], statistics=["auroc"]))
    np.testing.assert_allclose(ranking.score, distance[ranking.order], atol=1e-12)
    left_out = np.setdiff1d(np.arange(distance.size), ranking.order)
    np.testing.assert_allclose(distance[left_out], 0, atol=1e-12)


def test_by_hand():
    # problem a: correct 2 and 1 against incorrect 1, so one higher and one tie: 3/4; problem b: 0 against 5: 0. Mean 3/8.
    sums = np.array([2, 1, 1, 0, 5], np.float32).reshape(-1, 1, 1)
    moments = Moments(np.ones(5, np.int64), sums)
    ranking = auroc.score(class_moments([(moments, list("aaabb"), [True, True, False, True, False])], statistics=["auroc"]))
    assert ranking.score.tolist() == [0.125]


def test_a_hard_problem_does_not_masquerade_as_bad_reasoning():
    # the neuron is high on problem a, which is mostly solved, and tells nothing within a problem
    sums = np.array([9, 9, 9, 9, 1, 1, 1, 1], np.float32).reshape(-1, 1, 1)
    verdicts = [True, True, True, False, True, False, False, False]
    moments = class_moments([(Moments(np.ones(8, np.int64), sums), list("aaaabbbb"), verdicts)], statistics=["auroc"])
    assert moments.mean_difference[0, 0] == 4.0
    assert len(auroc.score(moments).order) == 0


def test_equal_scores_are_decided_by_the_difference():
    ranking = auroc.score(contrast([1.0, 3.0, -2.0, 5.0], np.zeros(4), auroc=[1.0, 0.75, 0.0, 0.5]))
    assert ranking.order.tolist() == [2, 0, 1]


def test_without_a_problem_that_has_both_verdicts():
    with pytest.raises(NotEnoughDataError, match="no problem has correct and incorrect ones"):
        auroc.score(contrast([1.0], [0.0], auroc=[np.nan], n_problems=0))
