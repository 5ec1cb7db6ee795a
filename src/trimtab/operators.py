"""Operators: what is done to the selected neurons, as the gains and shifts of one affine map at unit strength.

``a' = a + strength * g * (dgain * a + shift)``. An operator is a function from a :class:`NeuronSet` to an :class:`Edit`; write
your own and give it to :meth:`trimtab.steering.Steering.of`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.neurons import NeuronSet

ENHANCEMENT = 0.1
"""How much ``scale`` amplifies at unit strength: the factor 1.1 of neuron activation differential analysis."""


class Edit(NamedTuple):
    """Gains and shifts at unit strength, float32 ``[neuron]``."""

    dgain: NDArray[np.float32]
    shift: NDArray[np.float32]


Operator = Callable[[NeuronSet], Edit]


def steer(neurons: NeuronSet) -> Edit:
    """AdaRAS's ``steering_add`` (arXiv 2601.19847): a constant, ``shift = good - bad``."""
    return Edit(np.zeros(len(neurons), np.float32), neurons.delta)


def scale(neurons: NeuronSet) -> Edit:
    """Enhancement of neuron activation differential analysis: ``a' = 1.1 a`` at unit strength."""
    return Edit(np.full(len(neurons), ENHANCEMENT, np.float32), np.zeros(len(neurons), np.float32))


def suppress(neurons: NeuronSet) -> Edit:
    """Silence the neurons, ``a' = 0`` at unit strength: the causal test of neuron activation differential analysis."""
    return Edit(np.full(len(neurons), -1.0, np.float32), np.zeros(len(neurons), np.float32))


def blend(neurons: NeuronSet) -> Edit:
    """Towards the mean of the correct traces: ``a' = (1 - strength) a + strength good``."""
    return Edit(np.full(len(neurons), -1.0, np.float32), neurons.good)


def softplus_add(neurons: NeuronSet) -> Edit:
    """A constant that is never negative: ``shift = log(1 + exp(good))``."""
    return Edit(np.zeros(len(neurons), np.float32), np.logaddexp(np.float32(0.0), neurons.good).astype(np.float32))


def suppress_and_steer(neurons: NeuronSet) -> Edit:
    """Silence the neurons that incorrect traces use, and move all of them by ``good - bad``.

    ``dgain = -1`` where ``|bad| > |good|``, else 0; ``shift = good - bad``. A constant is the same at every token, so a large one
    breaks tokens that have nothing to do with the failure; the gain acts only where such a neuron is active. Above strength 1
    its activation changes sign.
    """
    silenced = np.abs(neurons.bad) > np.abs(neurons.good)
    return Edit(np.where(silenced, np.float32(-1.0), np.float32(0.0)), neurons.delta)


OPERATORS: Mapping[str, Operator] = {
    "steer": steer,
    "scale": scale,
    "suppress": suppress,
    "blend": blend,
    "softplus-add": softplus_add,
    "suppress-and-steer": suppress_and_steer,
}
"""By the name that a configuration uses."""
