"""Where the neurons of a set sit, by layer and expert, and what they share with other sets and with the most active neurons."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trimtab.errors import InputError, MismatchError
from trimtab.neurons import ModelIdentity

LEVEL = 0.95


class AnyNeurons(Protocol):
    """Addresses in a model: a :class:`Neurons`, a :class:`NeuronList` or a :class:`Steering`."""

    @property
    def layer(self) -> NDArray[np.int64]: ...

    @property
    def index(self) -> NDArray[np.int64]: ...

    @property
    def model(self) -> ModelIdentity: ...

    def __len__(self) -> int: ...


def in_words(model: ModelIdentity, layer: int, index: int) -> str:
    """A neuron's address on one line without alignment, for labels of figures."""
    return " ".join(model.address(layer, index).split())


@dataclass(frozen=True, slots=True)
class LayerCount:
    """One layer.

    Args:
        neurons: of the set.
        share_of_set, share_of_layer: their share of the set, and of the layer's neurons.
    """

    layer: int
    neurons: int
    share_of_set: float
    share_of_layer: float


@dataclass(frozen=True, slots=True)
class ExpertCount:
    """Neurons of the set in one expert of a layer; experts without any are left out."""

    layer: int
    expert: int
    neurons: int


@dataclass(frozen=True, slots=True)
class LayerHistogram:
    """Where a set sits, beside a set of the same size drawn from all neurons at random.

    Args:
        expected: neurons a layer that a random set has on average, ``k / n_layers``; of the widest layers, where they differ.
        low, high: 95 % of random sets have a count between them in such a layer, both included (hypergeometric).
        experts: empty for a dense model.
    """

    k: int
    layers: tuple[LayerCount, ...]
    expected: float
    low: int
    high: int
    experts: tuple[ExpertCount, ...]

    def to_json(self) -> dict[str, object]:
        """A dictionary of plain numbers, lists and dictionaries."""
        return asdict(self)


def layer_histogram(neurons: AnyNeurons) -> LayerHistogram:
    """Count the neurons of a set by layer, and by expert where the model has experts (side by side in ``index``).

    Raises:
        InputError: an empty set.
    """
    k, model = len(neurons), neurons.model
    if not k:
        raise InputError("a histogram of no neurons; give a set with one neuron or more")
    counts = np.bincount(neurons.layer, minlength=model.n_layers).tolist()
    tail = (1 - LEVEL) / 2
    low, high = stats.hypergeom.ppf([tail, 1 - tail], model.n_neurons, model.d_ff, k).tolist()
    return LayerHistogram(
        k=k,
        layers=tuple(LayerCount(i, count, count / k, count / (model.width(i) or 1)) for i, count in enumerate(counts)),
        expected=k / model.n_layers if model.widths is None else k * model.d_ff / model.n_neurons,
        low=int(low),
        high=int(high),
        experts=_experts(neurons),
    )


def _experts(neurons: AnyNeurons) -> tuple[ExpertCount, ...]:
    model = neurons.model
    expert = model.experts_of(neurons.layer, neurons.index)
    places, counts = np.unique((neurons.layer * model.n_experts + expert)[expert >= 0], return_counts=True)
    return tuple(
        ExpertCount(*divmod(place, model.n_experts), neurons=count)
        for place, count in zip(places.tolist(), counts.tolist(), strict=True)
    )


SHARES = tuple(tenth / 20 for tenth in range(1, 11))
"""The top 5, 10, ... 50 % activated neurons of a layer."""


@dataclass(frozen=True, slots=True)
class LayerOverlap:
    """One layer's part of a set, and how many of it are among the layer's top activated neurons, one number a share."""

    layer: int
    neurons: int
    shared: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TopOverlap:
    """Overlap of a set with the most activated neurons, layer by layer and in all.

    Args:
        shares: of each layer's neurons that count as top activated.
        top: how many neurons of a layer each share is.
        layers: every layer of the model.
        shared: in all layers together, one number a share; over ``k`` it is the overlap, which chance puts at the share itself.
        p: probability of sharing as many or more for a set of the same size in the same layers, drawn at random.
    """

    k: int
    shares: tuple[float, ...]
    top: tuple[int, ...]
    layers: tuple[LayerOverlap, ...]
    shared: tuple[int, ...]
    p: tuple[float, ...]

    def to_json(self) -> dict[str, object]:
        """A dictionary of plain numbers, lists and dictionaries."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PairOverlap:
    """The overlap of two sets.

    Args:
        jaccard: shared over the size of the union.
        expected, p: shared neurons of two sets of these sizes drawn from all neurons on average, and the probability of as many
            as observed or more (hypergeometric).
        expected_in_layers, p_in_layers: the same for sets that also keep their numbers in each layer: sets that sit in the same
            layers share more by chance.
    """

    first: str
    second: str
    n_first: int
    n_second: int
    shared: int
    jaccard: float
    expected: float
    p: float
    expected_in_layers: float
    p_in_layers: float

    def to_json(self) -> dict[str, object]:
        """A dictionary of plain numbers and names."""
        return asdict(self)


def top_overlap(neurons: AnyNeurons, magnitude: NDArray[np.float64], shares: Sequence[float] = SHARES) -> TopOverlap:
    """Count the neurons of a set among the most activated ones of their layer.

    Args:
        magnitude: mean magnitude of every neuron, ``[layer, d_ff]``. Equal magnitudes rank by index; NaN, an expert that no token
            was routed to, ranks last.
        shares: of a layer, rounded to whole neurons.

    Raises:
        InputError: an empty set, or a share outside 0 to 1.
        MismatchError: the magnitudes are of a model of other sizes.
    """
    model = neurons.model
    if magnitude.shape != (model.n_layers, model.d_ff):
        raise MismatchError(
            f"magnitudes [layer, d_ff] {list(magnitude.shape)} for a set of {model.name}, {[model.n_layers, model.d_ff]}"
        )
    if not len(neurons) or not all(0 < share <= 1 for share in shares):
        raise InputError(
            f"an overlap needs one neuron or more and shares above 0 and up to 1, got {len(neurons)} and {list(shares)}"
        )
    order = np.argsort(-magnitude, axis=1, kind="stable")
    position = np.empty_like(order)
    np.put_along_axis(position, order, np.broadcast_to(np.arange(model.d_ff), order.shape), axis=1)
    ranks = position[neurons.layer, neurons.index]
    top = [round(share * model.d_ff) for share in shares]
    tops = [[round(share * model.width(layer)) for share in shares] for layer in range(model.n_layers)]
    layers = []
    for layer in range(model.n_layers):
        here = ranks[neurons.layer == layer]
        layers.append(LayerOverlap(layer, len(here), tuple(int((here < size).sum()) for size in tops[layer])))
    shared = [sum(layer.shared[i] for layer in layers) for i in range(len(top))]
    p = [
        _tail(count, [(tops[layer.layer][i], layer.neurons, model.width(layer.layer)) for layer in layers])
        for i, count in enumerate(shared)
    ]
    return TopOverlap(len(neurons), tuple(shares), tuple(top), tuple(layers), tuple(shared), tuple(p))


def set_overlaps(sets: Mapping[str, AnyNeurons]) -> tuple[PairOverlap, ...]:
    """Compare every two of several sets.

    Raises:
        InputError: fewer than two sets, or an empty one.
        MismatchError: sets of models of other sizes.
    """
    models = {(s.model.n_layers, s.model.d_ff): s.model for s in sets.values()}
    if len(sets) < 2 or not all(len(neurons) for neurons in sets.values()):
        raise InputError(f"an overlap needs two sets or more, each with a neuron; got sizes {[len(s) for s in sets.values()]}")
    if len(models) > 1:
        raise MismatchError(f"sets of models of different sizes [layer, d_ff] have nothing in common: {sorted(models)}")
    (model,) = models.values()
    return tuple(_pair(one, other, sets[one], sets[other], model) for one, other in combinations(sets, 2))


def _pair(name: str, other_name: str, one: AnyNeurons, other: AnyNeurons, model: ModelIdentity) -> PairOverlap:
    mine, theirs = (neurons.layer * model.d_ff + neurons.index for neurons in (one, other))
    shared = len(np.intersect1d(mine, theirs))
    layers = [np.bincount(neurons.layer, minlength=model.n_layers).tolist() for neurons in (one, other)]
    in_layers = list(zip(*layers, strict=True))
    return PairOverlap(
        first=name,
        second=other_name,
        n_first=len(one),
        n_second=len(other),
        shared=shared,
        jaccard=shared / (len(one) + len(other) - shared),
        expected=len(one) * len(other) / model.n_neurons,
        p=_tail(shared, [(len(one), len(other), model.n_neurons)]),
        expected_in_layers=sum(a * b / (model.width(i) or 1) for i, (a, b) in enumerate(in_layers)),
        p_in_layers=_tail(shared, [(*counts, model.width(i)) for i, counts in enumerate(in_layers)]),
    )


def _tail(observed: int, draws: Sequence[tuple[int, int, int]]) -> float:
    """Probability that independent draws hit ``observed`` marked neurons or more in all.

    Args:
        draws: (marked, drawn, population) of each.
    """
    chances = np.ones(1)
    for marked, drawn, population in draws:
        if not marked or not drawn:  # no chance of a hit, and in a layer without neurons no distribution
            continue
        chances = np.convolve(chances, stats.hypergeom.pmf(np.arange(min(marked, drawn) + 1), population, marked, drawn))
    # summed from the smaller end, so that a tiny tail keeps its digits
    return min(1.0, float(np.sort(chances[observed:]).sum()))
