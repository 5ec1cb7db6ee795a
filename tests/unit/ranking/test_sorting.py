"""Sorting, and how many neurons reach a place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trimtab.errors import InputError
from trimtab.ranking import reaching, sort_neurons

keys = hnp.arrays(np.float64, (3, 2, 5), elements=st.integers(-2, 2).map(float))


@settings(deadline=None)
@given(keys)
def test_sorting_is_lexicographic_with_ties_by_address(values):
    eligible, score, tie_break = values[0] > -2, values[1], values[2]
    ranking = sort_neurons(eligible, score, tie_break)
    rows = [(-score.ravel()[i], -tie_break.ravel()[i], i) for i in range(10) if eligible.ravel()[i]]
    assert ranking.order.tolist() == [i for *_, i in sorted(rows)]
    assert ranking.tie_breaks[0].tolist() == [-b for _, b, _ in sorted(rows)]


@settings(deadline=None)
@given(keys, keys, st.integers(1, 10))
def test_reaching_equals_comparing_tuples(values, of_bar, k):
    everything = np.ones((2, 5), np.bool_)
    ranking, bar = (sort_neurons(everything, *pair[:2]) for pair in (values, of_bar))
    place = sorted(zip(of_bar[0].ravel(), of_bar[1].ravel(), strict=True), reverse=True)[k - 1]
    expected = sum(pair >= place for pair in zip(values[0].ravel(), values[1].ravel(), strict=True))
    assert reaching(ranking, bar, k) == expected
    assert reaching(bar, bar, k) >= k


def test_a_place_that_is_not_there():
    ranking = sort_neurons(np.ones((1, 3), np.bool_), np.arange(3.0)[None])
    for k in (0, 4):
        with pytest.raises(InputError, match=f"place {k} of a ranking of 3 neurons"):
            reaching(ranking, ranking, k)
