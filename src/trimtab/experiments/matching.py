"""Which neurons of another model do what these do: a one-to-one match by correlation, and how good it is on other texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from trimtab.errors import InputError
from trimtab.experiments.correlation import Addresses, Correlations, TextPair, correlate
from trimtab.model import LanguageModel
from trimtab.moments import TokenScope

SAME_NEURON = 0.5
"""A model whose neurons correlate this much with the ones at the same address, in the median, is taken for a fine-tune."""


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """Neurons of the target, one for each of the source's, and their correlations on texts that did not choose them.

    Args:
        neurons: of the target.
        sign: 1 or -1 ``[neuron]``, that of the correlation that chose it; a gated FFN can hold a neuron with its sign turned.
        correlation: on held-out texts, times the sign.
        shuffled: absolute correlation of the best partner, one to one, when the texts are shuffled; on the texts that chose it.
        chance: absolute correlation with random partners, on held-out texts.
        same_index: correlation with the neuron at the same address, on held-out texts; None for models of different sizes.
        at_same_index: how many partners sit at the source's own address; None as above.
        n_chosen_on, n_held_out: observations.
    """

    neurons: Addresses
    sign: NDArray[np.float64]
    correlation: NDArray[np.float64]
    shuffled: NDArray[np.float64]
    chance: NDArray[np.float64]
    same_index: NDArray[np.float64] | None
    at_same_index: int | None
    n_chosen_on: int
    n_held_out: int

    @property
    def is_fine_tune(self) -> bool:
        """Whether the target still has the source's neurons at their addresses."""
        return self.same_index is not None and float(np.median(self.same_index)) >= SAME_NEURON


def match_neurons(
    source: LanguageModel,
    target: LanguageModel,
    neurons: Addresses,
    pairs: Sequence[TextPair],
    scope: TokenScope,
    *,
    pooled: bool = False,
    seed: int = 0,
) -> Match:
    """Match on every other problem's texts and measure the match on the rest.

    Args:
        neurons: of the source.
        pairs: shared texts; see :func:`trimtab.experiments.correlation.correlate` for these and ``pooled``.

    Raises:
        InputError: the target has fewer neurons than are to be matched.
        NotEnoughDataError: too few texts for either half.
    """
    chosen_on, held_out = (correlate(source, target, half, neurons, scope, pooled=pooled, seed=seed) for half in halves(pairs))
    same_size = (source.n_layers, source.d_ff) == (target.n_layers, target.d_ff)
    own = neurons.layer * source.d_ff + neurons.index if same_size else None
    return judged(chosen_on, held_out, target.d_ff, own, seed)


def judged(chosen_on: Correlations, held_out: Correlations, d_ff: int, own: NDArray[np.int64] | None, seed: int = 0) -> Match:
    """Choose partners by some correlations and judge them by others.

    Args:
        d_ff: of the target.
        own: the source's own flat addresses ``[neuron]``, where the target has the same ones.
        seed: of the random partners.
    """
    rows = np.arange(len(chosen_on.paired))
    partner = assign(chosen_on.paired)
    sign = np.where(chosen_on.paired[rows, partner] < 0, -1.0, 1.0)
    random = np.random.default_rng(seed).permutation(chosen_on.paired.shape[1])[: len(rows)]
    return Match(
        neurons=Addresses(partner // d_ff, partner % d_ff),
        sign=sign,
        correlation=sign * held_out.paired[rows, partner],
        shuffled=np.abs(chosen_on.shuffled[rows, assign(chosen_on.shuffled)]),
        chance=np.abs(held_out.paired[rows, random]),
        same_index=None if own is None else held_out.paired[rows, own],
        at_same_index=None if own is None else int((partner == own).sum()),
        n_chosen_on=chosen_on.n,
        n_held_out=held_out.n,
    )


def assign(correlation: NDArray[np.float64]) -> NDArray[np.int64]:
    """The one-to-one partners, int64 ``[source]``, with the largest sum of absolute correlations.

    Args:
        correlation: ``[source, target]``.

    Raises:
        InputError: fewer targets than sources.

    Example:
        >>> assign(np.array([[0.9, 0.8], [-0.85, 0.1]])).tolist()
        [1, 0]
    """
    n_source, n_target = correlation.shape
    if n_source > n_target:
        raise InputError(f"{n_source} neurons cannot be matched one to one with {n_target}; carry fewer neurons")
    return linear_sum_assignment(np.abs(correlation), maximize=True)[1].astype(np.int64)


def halves(pairs: Sequence[TextPair]) -> tuple[list[TextPair], list[TextPair]]:
    """The texts of every other problem, and the rest: no problem is in both."""
    problems = sorted({pair.source.problem_id for pair in pairs})
    first = set(problems[::2])
    inside = [pair for pair in pairs if pair.source.problem_id in first]
    return inside, [pair for pair in pairs if pair.source.problem_id not in first]
