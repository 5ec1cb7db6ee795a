"""Youden's threshold against trying every cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.errors import InputError, NotEnoughDataError
from trimtab.gating import youden


def index_at(failed: list[bool], p: list[float], t: float) -> int:
    """TPR - FPR times the product of the class sizes, an exact integer."""
    hits = sum(f and value >= t for f, value in zip(failed, p, strict=True))
    alarms = sum(not f and value >= t for f, value in zip(failed, p, strict=True))
    return hits * failed.count(False) - alarms * failed.count(True)


probabilities = st.one_of(st.integers(0, 8).map(lambda i: i / 8), st.floats(0, 1))
rows = st.lists(st.tuples(st.booleans(), probabilities), min_size=2, max_size=25).filter(lambda r: len({f for f, _ in r}) == 2)


@settings(deadline=None)
@given(rows)
def test_no_cut_inside_the_unit_interval_is_better(cases):
    failed, p = [f for f, _ in cases], [value for _, value in cases]
    t = youden(failed, p)
    assert 0 < t < 1
    best = index_at(failed, p, t)
    fired = sum(value >= t for value in p)
    for cut in {*p, *(np.nextafter(value, 2) for value in p)}:
        if 0 < cut < 1:
            assert index_at(failed, p, cut) <= best
            # ties go to the cut that steers the fewest
            assert index_at(failed, p, cut) < best or sum(value >= cut for value in p) >= fired


def test_by_hand():
    assert youden([False, False, True, True], [0.1, 0.2, 0.6, 0.8]) == pytest.approx(0.4)
    # cuts below 0.2 and below 0.6 both give 1/2: the higher one steers fewer
    assert youden([True, False, True, False], [0.6, 0.4, 0.2, 0.1]) == pytest.approx(0.5)


def test_a_probability_that_tells_nothing_never_fires():
    t = youden([True, False, True, False], [0.3] * 4)
    assert 0.3 < t < 1


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_extreme_probabilities_keep_the_threshold_inside(p):
    assert youden([True, False], [p, p]) == 0.5


def test_neighbouring_floats_are_no_gap():
    above = np.nextafter(0.5, 1)
    assert youden([True, False], [above, 0.5]) == above
    assert 0 < youden([True, False], [1.0, np.nextafter(1.0, 0)]) < 1


def test_refusals():
    with pytest.raises(NotEnoughDataError, match="0 positive and 2 negative"):
        youden([False, False], [0.1, 0.2])
    with pytest.raises(InputError, match="between 0 and 1"):
        youden([True, False], [0.1, 1.2])
