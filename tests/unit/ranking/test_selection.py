"""From a ranking to a NeuronSet."""

import numpy as np
import pytest

from trimtab.errors import InputError, MismatchError
from trimtab.neurons import ModelIdentity
from trimtab.ranking import CRITERIA, ClassMoments, rank

MODEL = ModelIdentity("tiny", None, "qwen3", "f00", n_layers=2, d_model=3, d_ff=4, vocab_size=7)
GOOD = np.array([[1.0, 0.0, 2.0, 0.5], [0.0, -4.0, 0.0, 3.0]])
BAD = np.array([[-1.0, 0.0, 1.0, 0.5], [0.0, 2.0, -0.5, 3.0]])


def contrast() -> ClassMoments:
    return ClassMoments(GOOD, BAD, None, None, 6, 7, GOOD - BAD, np.ones_like(GOOD), 5)


def test_addresses_and_columns_belong_together():
    neurons = rank(contrast(), "mean-difference-polarity", 4, MODEL)
    # flips by size: (1, 1) delta 6, (0, 0) delta 2, (1, 2) delta 0.5; then (0, 2) with r = 1/3
    assert neurons.layer.tolist() == [1, 0, 1, 0]
    assert neurons.index.tolist() == [1, 0, 2, 2]
    assert neurons.delta.tolist() == [-6.0, 2.0, 0.5, 1.0]
    np.testing.assert_array_equal(neurons.good, GOOD[neurons.layer, neurons.index].astype(np.float32))
    np.testing.assert_array_equal(neurons.bad, BAD[neurons.layer, neurons.index].astype(np.float32))
    assert neurons.criterion == "mean-difference-polarity"
    assert (neurons.good.dtype, neurons.score.dtype, neurons.layer.dtype) == (np.float32, np.float64, np.int64)


def test_a_smaller_k_is_the_head_of_a_larger_one():
    large = rank(contrast(), "mean-difference", 4, MODEL)
    small = rank(contrast(), "mean-difference", 2, MODEL)
    assert small.layer.tolist() == large.top(2).layer.tolist()
    assert small.index.tolist() == large.top(2).index.tolist()


def test_facts_hold_the_counts_beside_those_given():
    facts = rank(contrast(), "mean-difference", 1, MODEL, {"scope": "response"}).facts
    assert facts == {"n_good": 6, "n_bad": 7, "n_problems": 5, "eligible": 4, "scope": "response"}


def test_an_unknown_criterion_lists_the_accepted_ones():
    with pytest.raises(InputError) as caught:
        rank(contrast(), "adaras", 1, MODEL)
    assert all(name in str(caught.value) for name in CRITERIA)


@pytest.mark.parametrize("k", [0, -1, 5, 9])
def test_k_beyond_the_eligible_neurons_says_how_many_there_are(k):
    with pytest.raises(InputError, match="4 of 8 eligible; give a k between 1 and 4"):
        rank(contrast(), "mean-difference-polarity", k, MODEL)


def test_another_model_is_refused():
    wider = ModelIdentity("wide", None, "qwen3", "f00", n_layers=2, d_model=3, d_ff=8, vocab_size=7)
    with pytest.raises(MismatchError, match=r"\[2, 4\], but wide has \[2, 8\]"):
        rank(contrast(), "mean-difference", 1, wider)


def test_seed_reaches_the_random_criterion():
    sets = [tuple(rank(contrast(), "random", 4, MODEL, seed=seed).index) for seed in (0, 0, 1, 2, 3)]
    assert sets[0] == sets[1]
    assert len(set(sets)) > 1
