"""Each criterion against its definition, neuron by neuron."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ranking_samples import contrast, recording
from trimtab.errors import InputError, NotEnoughDataError
from trimtab.ranking import CRITERIA, NEEDS, ClassMoments, NeuronCounts, class_moments
from trimtab.ranking.criteria import SEEDED, adaras, adaras_float32, mean_difference, paired_t, random_neurons


def naive_adaras(correct_mean: list[float], incorrect_mean: list[float]) -> list[int]:
    keys = []
    for i, (g, b) in enumerate(zip(correct_mean, incorrect_mean, strict=True)):
        if g != b:
            keys.append((-abs(g - b) / (abs(g) + abs(b)), -abs(g - b), i))
    return [i for *_, i in sorted(keys)]


# exact eighths, so that equal ratios are equal and ties are real
eighths = st.integers(-16, 16).map(lambda i: i / 8)


@settings(deadline=None)
@given(hnp.arrays(np.float64, (2, 3, 4), elements=eighths))
def test_adaras_equals_sorting_by_the_definition(values):
    ranking = adaras(contrast(values[0], values[1]))
    assert ranking.order.tolist() == naive_adaras(values[0].ravel().tolist(), values[1].ravel().tolist())


@settings(deadline=None)
@given(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300))
def test_a_sign_flip_and_an_exact_zero_give_one_exactly(a, b):
    ranking = adaras(contrast([a, -a, a, 0.0], [-b, b, 0.0, -b]))
    assert ranking.score.tolist() == [1.0] * 4


def test_adaras_order_by_hand():
    # 0: same sign, r = 1/3; 1: small flip; 2: 0/0; 3: large flip; 4: zero on one side; 5: no difference
    ranking = adaras(contrast([2.0, 0.1, 0.0, -3.0, 0.5, 7.0], [1.0, -0.1, 0.0, 3.0, 0.0, 7.0]))
    assert ranking.order.tolist() == [3, 4, 1, 0]
    np.testing.assert_allclose(ranking.score, [1, 1, 1, 1 / 3])


def test_full_ties_go_by_layer_and_index():
    ranking = adaras(contrast(np.ones((2, 3)), -np.ones((2, 3))))
    assert ranking.order.tolist() == [0, 1, 2, 3, 4, 5]


def naive_float32(correct_mean: list[float], incorrect_mean: list[float]) -> list[int]:
    keys = []
    for i, (g, b) in enumerate(zip(correct_mean, incorrect_mean, strict=True)):
        g32, b32 = np.float32(g), np.float32(b)
        r = abs(g32 - b32) / (abs(g32) + abs(b32) + np.float32(1e-8))
        if g32 != b32:
            keys.append((-r, -abs(g32 - b32), i))
    return [i for *_, i in sorted(keys)]


def test_float32_equals_scalar_arithmetic():
    rng = np.random.default_rng(0)
    correct_mean, incorrect_mean = rng.normal(0, 0.1, 400), rng.normal(0, 0.1, 400)
    ranking = adaras_float32(contrast(correct_mean, incorrect_mean))
    assert ranking.order.tolist() == naive_float32(correct_mean.tolist(), incorrect_mean.tolist())


def test_float32_lets_rounding_decide_below_about_a_sixth():
    # by hand: the offset moves both 0.16 and 0.09 up by one unit in the last place, r = 1 - 2^-23 and 1 - 2^-24
    flips = np.array([0.16, 0.09, 0.3])
    moments = contrast(flips / 2, -flips / 2)
    assert adaras_float32(moments).order.tolist() == [2, 1, 0]
    assert adaras(moments).order.tolist() == [2, 0, 1]


def test_float32_scores_stay_below_one_for_small_flips():
    score = adaras_float32(contrast([1e-9], [-1e-9])).score
    np.testing.assert_allclose(score, [2e-9 / 1.2e-8], rtol=1e-6)


def test_mean_difference_ignores_polarity():
    ranking = mean_difference(contrast([9.0, 0.1, 1.0, 2.0], [5.0, -0.1, 1.0, 0.0]))
    assert ranking.order.tolist() == [0, 3, 1]
    assert ranking.score.tolist() == [4.0, 2.0, 0.2]


def test_paired_t_by_hand():
    # t = 2 / sqrt(16 / 4) = 1, then -3 / sqrt(4 / 4) = -3
    moments = contrast([1.0, 1.0], [0.0, 0.0], difference_mean=[2.0, -3.0], difference_variance=[16.0, 4.0], n_problems=4)
    ranking = paired_t(moments)
    assert ranking.order.tolist() == [1, 0]
    assert ranking.score.tolist() == [3.0, 1.0]


def test_paired_t_decides_zero_variance_exactly():
    # 0: 0/0, 1: finite and huge, 2 and 3: the same difference in every problem, 4: mean of exactly 0
    moments = contrast(
        np.zeros(5),
        np.zeros(5),
        difference_mean=[0.0, 5.0, 1e-9, -1e-6, 0.0],
        difference_variance=[0.0, 1e-30, 0.0, 0.0, 2.0],
    )
    ranking = paired_t(moments)
    assert ranking.order.tolist() == [3, 2, 1]
    assert np.isinf(ranking.score[:2]).all()


@pytest.mark.parametrize("n", [0, 1])
def test_paired_t_needs_two_problems(n):
    undefined = [np.nan, np.nan]
    with pytest.raises(NotEnoughDataError, match=f"got {n}"):
        paired_t(contrast([1, 2], [0, 0], difference_mean=undefined, difference_variance=undefined, n_problems=n))


def test_random_is_seeded_and_ranks_every_neuron():
    moments = contrast(np.zeros((3, 40)), np.zeros((3, 40)))
    first = random_neurons(moments, seed=1)
    assert sorted(first.order.tolist()) == list(range(120))
    assert first.order.tolist() == random_neurons(moments, seed=1).order.tolist()
    assert first.order.tolist() != random_neurons(moments, seed=2).order.tolist()


def test_paired_t_reads_a_neurons_own_number_of_problems_in_a_mixture():
    # by hand: t = 2 / sqrt(16 / 4) = 1 and 2 / sqrt(16 / 16) = 2; the third has one problem and the fourth none
    counts = NeuronCounts(*(np.array([[4, 16, 1, 0]]) for _ in range(3)))
    mean, variance = [2.0, 2.0, 5.0, np.nan], [16.0, 16.0, np.nan, np.nan]
    moments = contrast(np.ones(4), np.zeros(4), difference_mean=mean, difference_variance=variance, counts=counts)
    ranking = paired_t(moments)
    assert ranking.order.tolist() == [1, 0]
    assert ranking.score.tolist() == [2.0, 1.0]


def all_statistics(seed: int, mixture: bool) -> ClassMoments:
    statistics = ("magnitude", "square", "difference", "auroc", "contribution")
    moments = class_moments([recording(seed, mixture=mixture)], statistics=statistics)
    return replace(moments, column_norm=np.random.default_rng(seed).random(moments.correct_mean.shape) + 0.5)


@pytest.mark.parametrize("mixture", [False, True])
@pytest.mark.parametrize("name", CRITERIA)
def test_scores_descend_and_neurons_without_a_value_are_not_eligible(name, mixture):
    for seed in range(3):
        moments = all_statistics(seed, mixture)
        ranking = CRITERIA[name](moments)
        assert ranking.order.dtype == np.int64
        assert ranking.score.dtype == np.float64
        assert len(set(ranking.order.tolist())) == len(ranking.order) == len(ranking.score) <= moments.comparable.sum()
        assert (np.diff(ranking.score) <= 0).all()
        assert not np.isnan(ranking.score).any()
        assert moments.comparable.ravel()[ranking.order].all()
        keys = list(zip(*(-key for key in (ranking.score, *ranking.tie_breaks)), ranking.order, strict=True))
        assert keys == sorted(keys)


@pytest.mark.parametrize("name", CRITERIA)
def test_needs_are_all_that_is_read_and_each_is_missed(name):
    full = all_statistics(0, mixture=False)
    statistics = {
        "magnitude": ("correct_magnitude", "incorrect_magnitude"),
        "square": ("correct_rms", "incorrect_rms", "correct_norm"),
        "difference": ("difference_mean", "difference_variance"),
        "auroc": ("auroc",),
        "contribution": ("contributions",),
    }
    for statistic, fields in statistics.items():
        without = replace(full, **dict.fromkeys(fields))
        if statistic in NEEDS[name]:
            with pytest.raises(InputError, match=f"criterion '{name}' reads '{statistic}', which these class moments lack"):
                CRITERIA[name](without)
        else:
            np.testing.assert_array_equal(CRITERIA[name](without).order, CRITERIA[name](full).order)


def test_seeded_criteria_are_those_that_draw():
    moments = all_statistics(0, mixture=False)
    for name in CRITERIA:
        assert ("seed" in CRITERIA[name](moments).facts) is (name in SEEDED)
