"""Neurons that one group's set holds and no other's: the complement of the union of the others."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MIN_SPECIFIC = 10
"""The initial sets grow until every group has as many neurons of its own."""
MAX_SHARE = 0.25
"""Initial sets hold at most this share of all neurons: beyond it the sets run into one another and less is left of each."""


class Specific(NamedTuple):
    """Specific sets and the sets that they came from.

    Args:
        k: neurons of each initial set, fewer where a ranking ends before.
        sets: by group the positions in its ranking of its own neurons, int64, best first.
    """

    k: int
    sets: Mapping[str, NDArray[np.int64]]

    @property
    def smallest(self) -> int:
        """The size of the smallest specific set."""
        return min(len(own) for own in self.sets.values())


def specific_at(orders: Mapping[str, NDArray[np.int64]], k: int) -> Specific:
    """The first k neurons of each ranking that are not among the first k of any other.

    Args:
        orders: by group the flat addresses of its neurons, int64 ``[neuron]``, best first.

    Example:
        >>> found = specific_at({"sums": np.array([3, 1, 2]), "names": np.array([1, 5, 3])}, 2)
        >>> {name: positions.tolist() for name, positions in found.sets.items()}
        {'sums': [0], 'names': [1]}
    """
    sets = {}
    for name, order in orders.items():
        others = [other[:k] for theirs, other in orders.items() if theirs != name]
        sets[name] = np.flatnonzero(~np.isin(order[:k], np.concatenate(others)))
    return Specific(k, sets)


def specific_sets(orders: Mapping[str, NDArray[np.int64]], k: int, n_neurons: int, minimum: int = MIN_SPECIFIC) -> Specific:
    """Specific sets of the smallest initial size that leaves every group ``minimum`` neurons of its own.

    The size starts at k and doubles, up to :data:`MAX_SHARE` of the model. If none is enough, the size whose smallest specific
    set is the largest is taken, the smallest such size on a tie.

    Args:
        n_neurons: of the model.
    """
    tried = [specific_at(orders, k)]
    while tried[-1].smallest < minimum and 2 * tried[-1].k <= MAX_SHARE * n_neurons:
        tried.append(specific_at(orders, 2 * tried[-1].k))
    enough = [found for found in tried if found.smallest >= minimum]
    return enough[0] if enough else max(tried, key=lambda found: found.smallest)
