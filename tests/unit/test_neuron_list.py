"""A list without class means: what it lacks is refused, by every intervention that reads it, also by one of the user's own."""

import numpy as np
import pytest

from trimtab.errors import InputError
from trimtab.interventions import INTERVENTIONS, Edit
from trimtab.neurons import ModelIdentity, NeuronList, Neurons
from trimtab.steering import Steering

MODEL = ModelIdentity("tiny", None, "qwen3", "f00", n_layers=2, d_model=4, d_ff=8, vocab_size=7)
WEIGHTS = np.array([0.5, -2.0, 0.0], np.float32)
LISTED = NeuronList(np.array([1, 0, 1]), np.array([3, 3, 0]), "imported-test", MODEL, WEIGHTS, {"n": 3})
BARE = NeuronList(LISTED.layer, LISTED.index, "imported-test", MODEL)


def test_what_needs_no_class_means_works() -> None:
    assert Steering.of(LISTED, 1.0).shift.tolist() == [0.5, -2.0, 0.0]
    for neurons in (LISTED, BARE):
        assert Steering.of(neurons, 1.0, intervention=INTERVENTIONS["ablate"]).gain.tolist() == [-1.0] * 3
        assert not Steering.of(neurons, 1.0, intervention=INTERVENTIONS["scale"]).shift.any()


@pytest.mark.parametrize("name", ["interpolate", "softplus-add", "ablate-and-add"])
def test_what_needs_class_means_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"\(imported-test\) holds no class means: use add, scale or ablate"):
        Steering.of(LISTED, 1.0, intervention=INTERVENTIONS[name])


def test_a_users_own_intervention_meets_the_same_refusal() -> None:
    def cautious(neurons: Neurons) -> Edit:
        # a comparison would swallow NaN; there is nothing to compare
        return Edit(np.where(np.abs(neurons.incorrect_mean) > 1, -1, 0).astype(np.float32), neurons.mean_difference)

    with pytest.raises(InputError, match="holds no class means"):
        Steering.of(LISTED, 1.0, intervention=cautious)


def test_the_first_k() -> None:
    top = LISTED.top(2)
    assert (top.layer.tolist(), top.index.tolist(), top.mean_difference.tolist(), top.facts) == (
        [1, 0],
        [3, 3],
        [0.5, -2.0],
        {"n": 3},
    )
    assert BARE.top(1).weight is None
    for k in (0, 4):
        with pytest.raises(InputError, match=f"the first {k} of a list of 3"):
            LISTED.top(k)


def test_bad_lists_are_refused() -> None:
    with pytest.raises(InputError, match="3 neurons has 2 weights"):
        NeuronList(LISTED.layer, LISTED.index, "x", MODEL, WEIGHTS[:2])
    with pytest.raises(InputError, match="outside tiny"):
        NeuronList(np.array([2]), np.array([0]), "x", MODEL)
    with pytest.raises(InputError, match="appears twice"):
        NeuronList(np.array([1, 1]), np.array([0, 0]), "x", MODEL)
