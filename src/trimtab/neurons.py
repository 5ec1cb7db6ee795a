"""Neurons: where they sit and the sets that a criterion selects.

A neuron is a coordinate of the input of a block's down projection: ``a = act(gate_proj(h)) * up_proj(h)`` for a gated FFN,
``a = act(fc1(h))`` for an ungated one.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError

NEURON_DEFINITION = "down_proj_input"


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What has to agree between a model and an artifact made for it.

    ``fingerprint`` is a hash of the weights (see :func:`trimtab.model.identity.identify`); ``d_ff`` is the width of the down
    projection's input.
    """

    name: str
    revision: str | None
    architecture: str
    fingerprint: str
    n_layers: int
    d_model: int
    d_ff: int
    vocab_size: int

    @property
    def n_neurons(self) -> int:
        return self.n_layers * self.d_ff


@dataclass(frozen=True, slots=True, eq=False)
class NeuronSet:
    """K ranked neurons, best first.

    Args:
        layer: int64 ``[neuron]``.
        index: int64 ``[neuron]``, coordinate within the layer's d_ff.
        score: float64 ``[neuron]``, what the criterion ranked by.
        good: float32 ``[neuron]``, class mean over correct traces.
        bad: float32 ``[neuron]``, class mean over incorrect traces.
        criterion: name of the criterion.
        model: the model whose activations were contrasted.
        facts: counts and settings that go into the file (contrast counts, scope, excluded neurons).

    Raises:
        InputError: lengths differ, an address lies outside the model, or a neuron appears twice.
    """

    layer: NDArray[np.int64]
    index: NDArray[np.int64]
    score: NDArray[np.float64]
    good: NDArray[np.float32]
    bad: NDArray[np.float32]
    criterion: str
    model: ModelIdentity
    facts: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_addresses(self.layer, self.index, self.model)
        lengths = {len(column) for column in (self.layer, self.index, self.score, self.good, self.bad)}
        if len(lengths) != 1:
            raise InputError(f"columns of a NeuronSet differ in length: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.layer)

    @property
    def delta(self) -> NDArray[np.float32]:
        """``good - bad``, the direction from incorrect to correct reasoning."""
        return self.good - self.bad

    @property
    def share(self) -> float:
        """The set's share of all neurons of the model."""
        return len(self) / self.model.n_neurons

    def top(self, k: int) -> "NeuronSet":
        """The k best neurons; raises InputError when there are fewer."""
        if not 0 < k <= len(self):
            raise InputError(f"asked for the top {k} of a set of {len(self)} neurons; k must lie between 1 and {len(self)}")
        columns = (self.layer, self.index, self.score, self.good, self.bad)
        return NeuronSet(*(column[:k] for column in columns), self.criterion, self.model, self.facts)  # type: ignore[arg-type]


def check_addresses(layer: NDArray[np.int64], index: NDArray[np.int64], model: ModelIdentity) -> None:
    """Raise InputError unless every (layer, index) exists in the model and appears once."""
    outside = (layer < 0) | (layer >= model.n_layers) | (index < 0) | (index >= model.d_ff)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise InputError(
            f"neuron (layer {layer[first]}, index {index[first]}) is outside {model.name}, "
            f"which has {model.n_layers} layers of {model.d_ff} neurons"
        )
    if len(np.unique(layer * model.d_ff + index)) != len(layer):
        raise InputError("a neuron appears twice in one set; every (layer, index) may appear once")
