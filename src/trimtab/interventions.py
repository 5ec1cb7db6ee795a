"""Interventions: edits of the selected neurons, as gains and shifts of one affine map at unit strength.

``a' = a + strength * g * (gain * a + shift)``. An intervention is a function from a :class:`Neurons` to an :class:`Edit`; write
your own and give it to :meth:`trimtab.steering.Steering.of`.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.neurons import Neurons

ENHANCEMENT = 0.1
"""How much ``scale`` amplifies at unit strength: the factor 1.1 of neuron activation differential analysis."""


class Edit(NamedTuple):
    """Gains and shifts at unit strength, float32 ``[neuron]``."""

    gain: NDArray[np.float32]
    shift: NDArray[np.float32]


Intervention = Callable[[Neurons], Edit]


def add(neurons: Neurons) -> Edit:
    """AdaRAS's ``steering_add`` (arXiv 2601.19847): a constant, ``shift = correct_mean - incorrect_mean``."""
    return Edit(np.zeros(len(neurons), np.float32), neurons.mean_difference)


def scale(neurons: Neurons) -> Edit:
    """Amplify the neurons, ``a' = 1.1 a`` at unit strength: the enhancement of neuron activation differential analysis."""
    return Edit(np.full(len(neurons), ENHANCEMENT, np.float32), np.zeros(len(neurons), np.float32))


def ablate(neurons: Neurons) -> Edit:
    """Set the neurons to zero, ``a' = 0`` at unit strength: the causal test of neuron activation differential analysis."""
    return Edit(np.full(len(neurons), -1.0, np.float32), np.zeros(len(neurons), np.float32))


def interpolate(neurons: Neurons) -> Edit:
    """Towards the mean of the correct traces: ``a' = (1 - strength) a + strength correct_mean``."""
    return Edit(np.full(len(neurons), -1.0, np.float32), neurons.correct_mean)


def softplus_add(neurons: Neurons) -> Edit:
    """A constant that is never negative: ``shift = log(1 + exp(correct_mean))``."""
    return Edit(np.zeros(len(neurons), np.float32), np.logaddexp(np.float32(0.0), neurons.correct_mean).astype(np.float32))


def ablate_and_add(neurons: Neurons) -> Edit:
    """Ablate the neurons that incorrect traces use, and move all of them by ``correct_mean - incorrect_mean``.

    ``gain = -1`` where ``|incorrect_mean| > |correct_mean|``, else 0; ``shift = correct_mean - incorrect_mean``. A constant is
    the same at every token, so a large one breaks tokens that have nothing to do with the failure; the gain acts only where such
    a neuron is active. Above strength 1 its activation changes sign.
    """
    silenced = np.abs(neurons.incorrect_mean) > np.abs(neurons.correct_mean)
    return Edit(np.where(silenced, np.float32(-1.0), np.float32(0.0)), neurons.mean_difference)


INTERVENTIONS: Mapping[str, Intervention] = {
    "add": add,
    "scale": scale,
    "ablate": ablate,
    "interpolate": interpolate,
    "softplus-add": softplus_add,
    "ablate-and-add": ablate_and_add,
}
"""By the name that a configuration uses."""


def named_intervention(intervention: str | Intervention) -> tuple[str, Intervention]:
    """The name of an intervention and its function, from either.

    Raises:
        InputError: an unknown name.
    """
    if not isinstance(intervention, str):
        known = [name for name, function in INTERVENTIONS.items() if function is intervention]
        return (known[0] if known else getattr(intervention, "__name__", type(intervention).__name__)), intervention
    if intervention not in INTERVENTIONS:
        close = get_close_matches(intervention, INTERVENTIONS, n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        raise InputError(
            f"unknown intervention {intervention!r}; accepted: {', '.join(INTERVENTIONS)}, or a function{meant}",
            code="unknown-intervention",
        )
    return intervention, INTERVENTIONS[intervention]
