"""Interventions: gains and shifts against the formula, neuron by neuron."""

import math

import numpy as np
import pytest

from trimtab.interventions import INTERVENTIONS, Edit
from trimtab.neurons import ModelIdentity, Neurons
from trimtab.steering import Steering

MODEL = ModelIdentity("tiny", None, "qwen3", "f00", n_layers=2, d_model=4, d_ff=8, vocab_size=7)
GOOD = [2.0, -1.0, 0.5, -3.0, 0.0]
BAD = [1.0, -2.0, 0.5, 3.0, 0.25]
NEURONS = Neurons(
    np.array([0, 0, 1, 1, 1]),
    np.array([1, 3, 0, 2, 7]),
    np.arange(5, 0, -1.0),
    np.array(GOOD, np.float32),
    np.array(BAD, np.float32),
    "mean-difference",
    MODEL,
)
ACTIVATIONS = [0.75, -4.0, 2.5, 1.0, -0.5]


def _naive(name: str, a: float, good: float, bad: float, strength: float) -> float:
    if name == "add":
        return a + strength * (good - bad)
    if name == "scale":
        return a * (1 + 0.1 * strength)
    if name == "ablate":
        return a * (1 - strength)
    if name == "interpolate":
        return (1 - strength) * a + strength * good
    if name == "softplus-add":
        return a + strength * math.log(1 + math.exp(good))
    kept = 1 - strength if abs(bad) > abs(good) else 1.0
    return kept * a + strength * (good - bad)


@pytest.mark.parametrize("strength", [1.0, 1.5, -2.0])
@pytest.mark.parametrize("name", list(INTERVENTIONS))
def test_every_intervention_is_its_formula(name: str, strength: float) -> None:
    steering = Steering.of(NEURONS, strength, intervention=INTERVENTIONS[name])
    assert steering.gain.dtype == steering.shift.dtype == np.float32
    for i, a in enumerate(ACTIVATIONS):
        moved = a + strength * (steering.gain[i] * a + steering.shift[i])
        assert moved == pytest.approx(_naive(name, a, GOOD[i], BAD[i], strength), rel=1e-6), i


def test_the_default_intervention_is_adaras() -> None:
    np.testing.assert_array_equal(Steering.of(NEURONS, 3.0).shift, NEURONS.mean_difference)
    assert not Steering.of(NEURONS, 3.0).gain.any()


def test_a_users_own_intervention() -> None:
    def half(neurons: Neurons) -> Edit:
        return Edit(np.zeros(len(neurons), np.float32), neurons.mean_difference / 2)

    np.testing.assert_array_equal(Steering.of(NEURONS, 1.0, intervention=half).shift, NEURONS.mean_difference / 2)
