"""From a ranking to a Neurons."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from ranking_samples import D_FF, LAYERS, recording
from trimtab.errors import InputError, MismatchError
from trimtab.neurons import ModelIdentity
from trimtab.ranking import CRITERIA, ClassMoments, Ranking, class_moments, rank
from trimtab.ranking.criteria import activation_ratio

MODEL = ModelIdentity("tiny", None, "qwen3", "f00", n_layers=2, d_model=3, d_ff=4, vocab_size=7)
GOOD = np.array([[1.0, 0.0, 2.0, 0.5], [0.0, -4.0, 0.0, 3.0]])
BAD = np.array([[-1.0, 0.0, 1.0, 0.5], [0.0, 2.0, -0.5, 3.0]])


def contrast() -> ClassMoments:
    return ClassMoments(GOOD, BAD, None, None, 6, 7, GOOD - BAD, np.ones_like(GOOD), 5)


def test_addresses_and_columns_belong_together():
    neurons = rank(contrast(), "adaras", 4, MODEL)
    # flips by size: (1, 1) mean_difference 6, (0, 0) mean_difference 2, (1, 2) mean_difference 0.5; then (0, 2) with r = 1/3
    assert neurons.layer.tolist() == [1, 0, 1, 0]
    assert neurons.index.tolist() == [1, 0, 2, 2]
    assert neurons.mean_difference.tolist() == [-6.0, 2.0, 0.5, 1.0]
    np.testing.assert_array_equal(neurons.correct_mean, GOOD[neurons.layer, neurons.index].astype(np.float32))
    np.testing.assert_array_equal(neurons.incorrect_mean, BAD[neurons.layer, neurons.index].astype(np.float32))
    assert neurons.criterion == "adaras"
    assert (neurons.correct_mean.dtype, neurons.score.dtype, neurons.layer.dtype) == (np.float32, np.float64, np.int64)


def test_a_smaller_k_is_the_head_of_a_larger_one():
    large = rank(contrast(), "mean-difference", 4, MODEL)
    small = rank(contrast(), "mean-difference", 2, MODEL)
    assert small.layer.tolist() == large.top(2).layer.tolist()
    assert small.index.tolist() == large.top(2).index.tolist()


def test_facts_hold_the_counts_beside_those_given():
    facts = rank(contrast(), "mean-difference", 1, MODEL, {"scope": "response"}).facts
    assert facts == {"n_correct": 6, "n_incorrect": 7, "n_problems": 5, "eligible": 4, "scope": "response"}


def test_an_unknown_criterion_lists_the_accepted_ones():
    with pytest.raises(InputError) as caught:
        rank(contrast(), "no-such-criterion", 1, MODEL)
    assert all(name in str(caught.value) for name in CRITERIA)


@pytest.mark.parametrize("k", [0, -1, 5, 9])
def test_k_beyond_the_eligible_neurons_says_how_many_there_are(k):
    with pytest.raises(InputError, match="4 of 8 eligible; give a k between 1 and 4"):
        rank(contrast(), "adaras", k, MODEL)


def test_another_model_is_refused():
    wider = ModelIdentity("wide", None, "qwen3", "f00", n_layers=2, d_model=3, d_ff=8, vocab_size=7)
    with pytest.raises(MismatchError, match=r"\[2, 4\], but wide has \[2, 8\]"):
        rank(contrast(), "mean-difference", 1, wider)


@pytest.mark.parametrize("name", ["random", "sign-flip"])
def test_seed_reaches_the_criteria_that_draw(name):
    found = [rank(contrast(), name, 2, MODEL, seed=seed) for seed in (0, 0, 1, 2, 3, 4, 5)]
    sets = [tuple(neurons.layer * 4 + neurons.index) for neurons in found]
    assert sets[0] == sets[1]
    assert len(set(sets)) > 1
    assert [neurons.facts["seed"] for neurons in found] == [0, 0, 1, 2, 3, 4, 5]


def smallest_first(moments: ClassMoments) -> Ranking:
    order = np.flatnonzero(moments.mean_difference)[::-1].astype(np.int64)
    return Ranking(order, np.linspace(1, 0, len(order)), facts={"own": 7})


def test_a_function_of_ones_own_needs_a_name_of_its_own():
    neurons = rank(contrast(), smallest_first, 2, MODEL, name="smallest")
    assert neurons.criterion == "smallest"
    assert neurons.facts["own"] == 7
    assert (neurons.layer * 4 + neurons.index).tolist() == [6, 5]
    for name in (None, "", "random"):
        with pytest.raises(InputError, match="needs a name of its own"):
            rank(contrast(), smallest_first, 2, MODEL, name=name)
    with pytest.raises(InputError, match="'random' has its own name, but was given 'mine'"):
        rank(contrast(), "random", 2, MODEL, name="mine")


def test_a_criterion_with_other_parameters_leaves_them_in_the_file():
    moments = replace(contrast(), correct_magnitude=np.abs(GOOD) + 1, incorrect_magnitude=np.abs(BAD) + 1)
    strict = partial(activation_ratio, threshold=1.4, share=1.0)
    # ratios above 1.4: 5 / 3 at (1, 1) and 3 / 2 at (0, 2)
    neurons = rank(moments, strict, 2, MODEL, name="activation-ratio-1.4")
    assert (neurons.layer * 4 + neurons.index).tolist() == [5, 2]
    assert neurons.facts["threshold"] == 1.4
    with pytest.raises(InputError, match=r"'activation-ratio-1\.4' finds 2 of 8 eligible; give a k between 1 and 2"):
        rank(moments, strict, 3, MODEL, name="activation-ratio-1.4")


@pytest.mark.parametrize(
    ("order", "score", "message"),
    [
        ([1, 1], [1.0, 0.5], "ranked a neuron twice, or one that the model has not"),
        ([1, 8], [1.0, 0.5], "from 0 to 7"),
        ([-1, 1], [1.0, 0.5], "from 0 to 7"),
        ([0, 1], [1.0], "return int64 and float64 of one length"),
        ([0.0, 1.0], [1.0, 0.5], "an order of float64"),
        ([0, 1], [1.0, np.nan], "scored neurons with NaN"),
    ],
)
def test_a_ranking_that_is_none_is_refused(order, score, message):
    with pytest.raises(InputError, match=message):
        rank(contrast(), lambda moments: Ranking(np.array(order), np.array(score)), 1, MODEL, name="mine")


def test_only_neurons_of_the_given_layers():
    everywhere = rank(contrast(), "mean-difference", 4, MODEL)
    for layers in ([1], (1, 1), {1}):
        neurons = rank(contrast(), "mean-difference", 2, MODEL, layers=layers)
        assert neurons.index.tolist() == everywhere.index[everywhere.layer == 1].tolist()
        assert set(neurons.layer.tolist()) == {1}
        assert (neurons.facts["layers"], neurons.facts["eligible"]) == ([1], 2)
    both = rank(contrast(), "mean-difference", 4, MODEL, layers=range(2))
    assert both.index.tolist() == everywhere.index.tolist()
    with pytest.raises(InputError, match=r"finds 2 of 8 eligible in the layers \[0\]; give a k between 1 and 2"):
        rank(contrast(), "mean-difference", 3, MODEL, layers=[0])


@pytest.mark.parametrize("layers", [[], [2], [-1, 0]])
def test_layers_that_the_model_has_not(layers):
    with pytest.raises(InputError, match="give some of 0 to 1, or None for all"):
        rank(contrast(), "mean-difference", 1, MODEL, layers=layers)


def test_too_few_flips_are_an_error():
    with pytest.raises(InputError, match="asked for 4 neurons, but criterion 'sign-flip' finds 2 of 8 eligible"):
        rank(contrast(), "sign-flip", 4, MODEL)
    flat = replace(contrast(), correct_mean=BAD)
    with pytest.raises(InputError, match="finds 0 of 8 eligible; use another criterion, other parameters or more traces"):
        rank(flat, "sign-flip", 1, MODEL)


def test_neurons_of_experts_without_tokens_are_never_selected_not_even_by_ones_own_criterion():
    moments = class_moments([recording(0, mixture=True)])
    model = ModelIdentity("experts", None, "qwen3_moe", "f00", n_layers=LAYERS, d_model=3, d_ff=D_FF, vocab_size=7)
    usable = int(moments.comparable.sum())

    def all_of_them(moments: ClassMoments) -> Ranking:
        return Ranking(np.arange(LAYERS * D_FF), np.zeros(LAYERS * D_FF))

    neurons = rank(moments, all_of_them, usable, model, name="all")
    assert moments.comparable[neurons.layer, neurons.index].all()
    assert neurons.facts["without_value"] == LAYERS * D_FF - usable > 0
    with pytest.raises(InputError, match=f"finds {usable} of {LAYERS * D_FF} eligible"):
        rank(moments, all_of_them, usable + 1, model, name="all")
