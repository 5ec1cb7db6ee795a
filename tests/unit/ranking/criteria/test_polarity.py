"""Sign flips alone."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ranking_samples import contrast
from trimtab.ranking.criteria import sign_flip

values = st.sampled_from([-2.0, -0.5, -1e-300, -0.0, 0.0, 1e-300, 0.5, 2.0])


@settings(deadline=None)
@given(hnp.arrays(np.float64, (2, 3, 4), elements=values))
def test_eligible_are_strictly_opposite_signs(pair):
    correct_mean, incorrect_mean = pair[0].ravel().tolist(), pair[1].ravel().tolist()
    flips = {i for i, (g, b) in enumerate(zip(correct_mean, incorrect_mean, strict=True)) if g > 0 > b or g < 0 < b}
    ranking = sign_flip.score(contrast(pair[0], pair[1]))
    assert set(ranking.order.tolist()) == flips
    assert ranking.score.tolist() == [1.0] * len(flips)


def test_the_order_does_not_depend_on_the_size_of_the_difference():
    rng = np.random.default_rng(0)
    correct_mean, sizes = rng.choice([-1.0, 1.0], (3, 50)), rng.random((3, 50)) + 0.1
    small = sign_flip.score(contrast(correct_mean, -correct_mean)).order
    np.testing.assert_array_equal(sign_flip.score(contrast(correct_mean * sizes, -correct_mean)).order, small)


def test_the_order_is_drawn_by_the_seed_and_favours_no_layer():
    moments = contrast(np.ones((4, 500)), -np.ones((4, 500)))
    first, again, other = (sign_flip.score(moments, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.order, again.order)
    assert first.order.tolist() != other.order.tolist()
    assert first.facts == {"seed": 1}
    # 200 of 2,000 by chance: 50 a layer, with a standard deviation of about 6
    assert np.bincount(first.order[:200] // 500).min() > 25


def test_a_neurons_draw_is_its_own_whichever_others_flip():
    correct_mean = np.ones((2, 20))
    whole = sign_flip.score(contrast(correct_mean, -correct_mean)).order
    some = contrast(correct_mean, np.where(np.arange(40).reshape(2, 20) % 3 == 0, -correct_mean, correct_mean))
    np.testing.assert_array_equal(sign_flip.score(some).order, [i for i in whole if i % 3 == 0])
