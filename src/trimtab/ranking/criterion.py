"""The protocol of a criterion, the one way to sort neurons by it, and how many reach a given place."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.ranking.contrast import ClassMoments

_NO_FACTS: Mapping[str, object] = MappingProxyType({})


class Ranking(NamedTuple):
    """The eligible neurons, best first.

    Args:
        order: int64 ``[neuron]``, flat addresses ``layer * d_ff + index``.
        score: float64 ``[neuron]``, what they were ranked by, in the same order.
        tie_breaks: float64 ``[neuron]`` each, in the same order: what equal scores were ranked by, descending as the score.
        facts: parameters and counts of the criterion, for the file.
    """

    order: NDArray[np.int64]
    score: NDArray[np.float64]
    tie_breaks: tuple[NDArray[np.float64], ...] = ()
    facts: Mapping[str, object] = _NO_FACTS


class Criterion(Protocol):
    """Ranks all neurons of a contrast; leaves out those that it can never select."""

    def __call__(self, moments: ClassMoments, /) -> Ranking: ...


class SeededCriterion(Protocol):
    """A criterion that draws."""

    def __call__(self, moments: ClassMoments, /, seed: int = 0) -> Ranking: ...


def sort_neurons(
    eligible: NDArray[np.bool_],
    score: NDArray[np.floating],
    *tie_breaks: NDArray[np.floating],
    facts: Mapping[str, object] = _NO_FACTS,
) -> Ranking:
    """Rank by score, then by each tie break, all descending; what is still tied goes by (layer, index).

    Args:
        eligible, score, tie_breaks: ``[layer, d_ff]`` each, without NaN where eligible.
        facts: for :class:`Ranking`.
    """
    address = np.flatnonzero(eligible)
    keys = [-key.ravel()[address] for key in (score, *tie_breaks)]
    # lexsort takes the primary key last and is stable, so full ties keep the order of their addresses
    order = address[np.lexsort(keys[::-1])].astype(np.int64)
    score, *breaks = (key.ravel()[order].astype(np.float64) for key in (score, *tie_breaks))
    return Ranking(order, score, tuple(breaks), facts)


def reaching(ranking: Ranking, bar: Ranking, k: int) -> int:
    """How many neurons of a ranking reach the k-th place of another by the same criterion: score first, then tie breaks.

    With `ranking` from shuffled labels and `bar` from the true ones, its mean over k estimates the share of false discoveries.

    Raises:
        InputError: `bar` has no k-th place.
    """
    if not 0 < k <= len(bar.order):
        raise InputError(f"asked for place {k} of a ranking of {len(bar.order)} neurons; give one between 1 and {len(bar.order)}")
    above, tied = np.zeros(len(ranking.order), np.bool_), np.ones(len(ranking.order), np.bool_)
    keys = zip((ranking.score, *ranking.tie_breaks), (bar.score, *bar.tie_breaks), strict=True)
    for key, of_bar in keys:
        above |= tied & (key > of_bar[k - 1])
        tied &= key == of_bar[k - 1]
    return int((above | tied).sum())


def needed(value: NDArray[np.float64] | None, what: str, criterion: str) -> NDArray[np.float64]:
    """An optional array that a criterion cannot do without.

    Args:
        value: the array, or None.
        what: the statistic that it belongs to, or ``column_norm``.
        criterion: who asks.

    Raises:
        InputError: it is missing, with what to do about it.
    """
    if value is None:
        raise InputError(f"criterion {criterion!r} reads {what!r}, which these class moments lack; {_FIXES[what]}")
    return value


_FIXES = {
    "magnitude": "record with 'magnitude' in recording.moments, and ask class_moments for that statistic",
    "square": "record with 'square' in recording.moments, and ask class_moments for that statistic",
    "difference": "ask class_moments for that statistic",
    "auroc": "ask class_moments for that statistic; nothing has to be recorded again",
    "column_norm": "give them with dataclasses.replace(moments, column_norm=column_norms(down_weights(opened, range(n_layers))))",
}
