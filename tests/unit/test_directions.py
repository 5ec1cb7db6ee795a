"""Directions and the steerings that hold them: values that refuse what does not fit, add up and keep old digests."""

from dataclasses import replace

import numpy as np
import pytest

from trimtab.directions import Directions, layers_in_words
from trimtab.errors import InputError
from trimtab.gate import ALWAYS, NEVER
from trimtab.neurons import ModelIdentity
from trimtab.steering import Steering

MODEL = ModelIdentity("m", None, "qwen3", "f", n_layers=3, d_model=4, d_ff=8, vocab_size=9)
VECTORS = np.array([[1, 2, 3, 4], [0, -1, 0, 2]], np.float32)


def _directions(layers=(0, 2), vectors=VECTORS) -> Directions:
    return Directions(np.array(layers), vectors, "mean-difference", MODEL, {"n_correct": 3})


def _neurons() -> Steering:
    one = np.ones(1, np.float32)
    return Steering(np.array([1]), np.array([3]), 0 * one, one, 0.5, "generated", ALWAYS, MODEL)


@pytest.mark.parametrize(
    ("layers", "vectors", "message"),
    [
        ((0, 3), VECTORS, r"layers \[0, 3\] of m, which has layers 0 to 2"),
        ((-1, 2), VECTORS, "which has layers 0 to 2"),
        ((2, 0), VECTORS, "at most once, in order"),
        ((1, 1), VECTORS, "at most once, in order"),
        ((0,), VECTORS, "one vector a layer"),
        ((0, 2), VECTORS[:, :3], "3 numbers does not fit m, whose residual stream is 4 wide"),
        ((0, 2), VECTORS * [[1], [np.nan]], "direction of layer 2 holds NaN or infinity"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(layers, vectors, message):
    with pytest.raises(InputError, match=message):
        _directions(layers, np.asarray(vectors, np.float32))


def test_a_choice_of_layers_keeps_their_vectors():
    found = _directions().at(2)
    assert (found.layer.tolist(), found.vector.tolist()) == ([2], [VECTORS[1].tolist()])
    with pytest.raises(InputError, match=r"no direction for layer \[1\]; there are layers 0, 2"):
        _directions().at(1)


def test_a_steering_along_directions_holds_them_and_no_neuron():
    steering = _directions().steering(strength=2.0, scope="all")
    assert (len(steering), len(steering.layer), steering.strength, steering.scope) == (2, 0, 2.0, "all")
    assert np.array_equal(steering.direction, VECTORS)
    assert steering.facts == {"n_correct": 3, "criterion": "mean-difference", "intervention": "add direction"}
    assert "along 2 directions of m, after layers 0, 2 (mean-difference, add direction)" in repr(steering)
    assert "2 directions of mean norm 3.86" in repr(steering)
    assert steering  # truth is that of its places, so no key takes it for the bare model
    assert steering.to_pandas()["layer"].tolist() == [0, 2]


def test_every_part_of_a_direction_is_in_the_digest():
    steering = _directions().steering()
    others = [
        _directions((1, 2)).steering(),
        _directions(vectors=VECTORS + np.float32(1e-6)).steering(),
        steering.with_strength(2.0),
        replace(steering, gate=NEVER),
        _neurons(),
        replace(_neurons(), direction_layer=steering.direction_layer, direction=steering.direction),
    ]
    assert len({steering.digest, *(other.digest for other in others)}) == 7


def test_the_digest_of_a_steering_without_directions_is_the_one_it_always_had():
    assert _neurons().digest == "9761f8bb0932ce456ca70b5b856c6dbb"


def test_neurons_and_directions_add_up_at_their_strengths():
    one, other = _directions().steering(strength=2.0), _directions((2,), VECTORS[:1]).steering(strength=-1.0)
    both = one + other + _neurons()
    assert both.strength == 1.0
    assert both.direction_layer.tolist() == [0, 2]
    assert both.direction.tolist() == [(2 * VECTORS[0]).tolist(), (2 * VECTORS[1] - VECTORS[0]).tolist()]
    assert (both.layer.tolist(), both.index.tolist(), both.shift.tolist()) == ([1], [3], [0.5])
    assert "of 1 neuron of m, in 1 of 3 layers, and along 2 directions, after layers 0, 2" in repr(both)
    assert both.to_pandas()["site"].tolist() == ["neuron", "residual", "residual"]


def test_a_verb_of_neurons_says_what_it_cannot_do():
    _neurons().refuse_directions("a random set is of neurons")
    with pytest.raises(InputError, match="a list is of neurons, and this steering adds to the residual stream after layers 0, 2"):
        _directions().steering().refuse_directions("a list is of neurons")


def test_layers_read_as_runs():
    assert layers_in_words(np.array([], np.int64)) == "no layer"
    assert layers_in_words(np.array([3])) == "layer 3"
    assert layers_in_words(np.array([0, 1, 4, 5, 6, 9])) == "layers 0, 1, 4 to 6, 9"
