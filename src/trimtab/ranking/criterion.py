"""The protocol of a criterion, and the one way to sort neurons by it."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from trimtab.ranking.contrast import ClassMoments


class Ranking(NamedTuple):
    """The eligible neurons, best first.

    Args:
        order: int64 ``[neuron]``, flat addresses ``layer * d_ff + index``.
        score: float64 ``[neuron]``, what they were ranked by, in the same order.
    """

    order: NDArray[np.int64]
    score: NDArray[np.float64]


class Criterion(Protocol):
    """Ranks all neurons of a contrast; leaves out those that it can never select."""

    def __call__(self, moments: ClassMoments) -> Ranking: ...


def sort_neurons(eligible: NDArray[np.bool_], score: NDArray[np.floating], *tie_breaks: NDArray[np.floating]) -> Ranking:
    """Rank by score, then by each tie break, all descending; what is still tied goes by (layer, index).

    Args:
        eligible, score, tie_breaks: ``[layer, d_ff]`` each, without NaN where eligible.
    """
    address = np.flatnonzero(eligible)
    keys = [-key.ravel()[address] for key in (score, *tie_breaks)]
    # lexsort takes the primary key last and is stable, so full ties keep the order of their addresses
    order = address[np.lexsort(keys[::-1])].astype(np.int64)
    return Ranking(order, score.ravel()[order].astype(np.float64))
