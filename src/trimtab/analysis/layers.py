"""In which layers, and of a mixture of experts in which experts, the neurons of a set sit."""

from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from trimtab.errors import InputError
from trimtab.neurons import ModelIdentity

LEVEL = 0.95


class Neurons(Protocol):
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
        expected: neurons a layer that a random set has on average, ``k / n_layers``.
        low, high: 95 % of random sets have a count between them in a given layer, both included (hypergeometric).
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


def layer_histogram(neurons: Neurons) -> LayerHistogram:
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
        layers=tuple(LayerCount(i, count, count / k, count / model.d_ff) for i, count in enumerate(counts)),
        expected=k / model.n_layers,
        low=int(low),
        high=int(high),
        experts=_experts(neurons),
    )


def _experts(neurons: Neurons) -> tuple[ExpertCount, ...]:
    model = neurons.model
    if model.n_experts == 1:
        return ()
    places, counts = np.unique(neurons.layer * model.n_experts + neurons.index // model.d_expert, return_counts=True)
    return tuple(
        ExpertCount(*divmod(place, model.n_experts), neurons=count)
        for place, count in zip(places.tolist(), counts.tolist(), strict=True)
    )
