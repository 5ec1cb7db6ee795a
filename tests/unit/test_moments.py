"""Moments of experts: who was routed there decides what a mean is taken over."""

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.moments import Moments

COUNT = np.array([[[2, 0]], [[1, 4]]])
TOTAL = np.array([[[6.0, -4.0, 0.0, 0.0]], [[3.0, 5.0, 8.0, -2.0]]], np.float32)
NAN = float("nan")


def moments(**changes: object) -> Moments:
    """Two traces of one layer with two experts of two neurons."""
    arrays = {"sum": TOTAL, "magnitude": np.abs(TOTAL), "square": TOTAL**2, "tokens": np.array([4, 5])}
    return Moments(COUNT, **{**arrays, **changes})


def test_a_mean_is_over_the_routed_tokens():
    np.testing.assert_array_equal(moments().mean(), [[[3.0, -2.0, NAN, NAN]], [[3.0, 5.0, 2.0, -0.5]]])
    np.testing.assert_array_equal(moments().mean_magnitude(), [[[3.0, 2.0, NAN, NAN]], [[3.0, 5.0, 2.0, 0.5]]])
    np.testing.assert_array_equal(moments(square=np.full_like(TOTAL, 8.0)).rms()[0], [[2.0, 2.0, NAN, NAN]])
    assert moments().mean().dtype == np.float32


def test_a_gate_reads_the_mean_over_all_tokens():
    np.testing.assert_array_equal(
        moments().mean_of_all_tokens(), np.array([[[1.5, -1, 0, 0]], [[0.6, 1, 1.6, -0.4]]], np.float32)
    )
    dense = Moments(np.array([2, 4]), sum=np.ones((2, 1, 3), np.float32))
    np.testing.assert_array_equal(dense.mean_of_all_tokens(), dense.mean())


def test_merging_and_taking():
    twice = moments().merge(moments())
    np.testing.assert_array_equal(twice.count, 2 * COUNT)
    np.testing.assert_array_equal(twice.tokens, [8, 10])
    np.testing.assert_array_equal(twice.mean(), moments().mean())
    one = moments().take([1])
    assert (one.n_experts, one.is_mixture, one.tokens.tolist()) == (2, True, [5])
    np.testing.assert_array_equal(one.mean(), moments().mean()[[1]])


def test_refusals():
    with pytest.raises(InputError, match="need `tokens`"):
        moments(tokens=None)
    with pytest.raises(InputError, match="dense ones must not have it"):
        Moments(np.array([2]), tokens=np.array([2]))
    with pytest.raises(InputError, match=r"moments of \[layer, d_ff\] \[1, 3\] with counts of \[1, 2\]"):
        moments(sum=np.ones((2, 1, 3), np.float32))
    with pytest.raises(InputError, match=r"moments of \[layer, d_ff\] \[2, 4\] with counts of \[1, 2\]"):
        moments(sum=np.ones((2, 2, 4), np.float32))
    with pytest.raises(InputError, match="1 traces have no token in this scope"):
        moments(tokens=np.array([0, 5])).mean()
    with pytest.raises(InputError, match="moment 'sum' was not recorded"):
        moments(sum=None).mean_of_all_tokens()
