"""Neurons: where they sit and the sets that a criterion selects.

A neuron is a post-activation MLP unit, a coordinate of the input of a block's down projection:
``a = act(gate_proj(h)) * up_proj(h)`` for a gated FFN, ``a = act(fc1(h))`` for an ungated one.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import SerializerFunctionWrapHandler, model_serializer

from trimtab.display import as_html, counted
from trimtab.errors import InputError

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

    from trimtab.gate import AnyGate
    from trimtab.interventions import Intervention
    from trimtab.steering import PositionScope, Steering

NEURON_DEFINITION = "down_proj_input"


LARGEST_SIZE = 2**31
"""Of a model's layers, widths and vocabulary, so that every address fits into an int64."""


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What has to agree between a model and an artifact made for it.

    ``fingerprint`` is a hash of the weights (see :func:`trimtab.model.identity.identify`); ``d_ff`` is the width of the down
    projection's input. A mixture of experts is one wide FFN whose experts' neurons stand side by side,
    ``index = expert * d_expert + i``; a dense model has one expert. Where the layers differ, d_ff is that of the widest and
    ``widths`` tells how many neurons each layer has: index 0 up to its width, none in a layer of width 0. In a mixture of
    experts a layer narrower than d_ff is a dense one.

    Raises:
        InputError: the experts do not divide d_ff, a size that no model has, or widths that are not one a layer with d_ff the
            largest.
    """

    name: str
    revision: str | None
    architecture: str
    fingerprint: str
    n_layers: int
    d_model: int
    d_ff: int
    vocab_size: int
    n_experts: int = 1
    widths: tuple[int, ...] | None = None

    # what pydantic asks of a file that holds one: no unknown key, no conversion
    __pydantic_config__ = {"extra": "forbid", "strict": True}  # noqa: RUF012

    def __post_init__(self) -> None:
        for size in ("n_layers", "d_model", "d_ff", "vocab_size", "n_experts"):
            if not 1 <= getattr(self, size) <= LARGEST_SIZE:
                raise InputError(f"{size} is {getattr(self, size)}; a model's sizes lie between 1 and {LARGEST_SIZE:,}")
        if self.n_experts < 1 or self.d_ff % self.n_experts:
            raise InputError(
                f"{self.d_ff} neurons a layer are not {self.n_experts} experts of one width; one must divide the other"
            )
        if self.widths is not None and (
            len(self.widths) != self.n_layers or max(self.widths) != self.d_ff or min(self.widths) < 0
        ):
            raise InputError(
                f"widths {list(self.widths)} for {self.n_layers} layers of up to {self.d_ff} neurons; give one each, the largest "
                f"{self.d_ff}, or none where all are alike"
            )

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Files of models whose layers are alike have no ``widths``."""
        written = write(self)
        return {name: value for name, value in written.items() if name != "widths" or value is not None}

    def width(self, layer: int) -> int:
        """How many neurons a layer has."""
        return self.d_ff if self.widths is None else self.widths[layer]

    def peers(self, layer: int, index: int) -> tuple[int, int]:
        """First and last + 1 index of the neurons that act wherever this one does: those of its expert, or of its layer."""
        if self.n_experts == 1 or self.width(layer) < self.d_ff:
            return 0, self.width(layer)
        first = index - index % self.d_expert
        return first, first + self.d_expert

    def experts_of(self, layer: NDArray[np.int64], index: NDArray[np.int64]) -> NDArray[np.int64]:
        """The expert of each neuron, -1 in a dense layer."""
        widths = np.array(self.widths or [self.d_ff] * self.n_layers)
        return np.where((self.n_experts > 1) & (widths[layer] == self.d_ff), index // self.d_expert, -1)

    @property
    def width_text(self) -> str:
        """The neurons of a layer in words.

        Example:
            >>> ModelIdentity("m", None, "mixtral", "f", 3, 4, d_ff=16, vocab_size=9, n_experts=2, widths=(8, 16, 16)).width_text
            '2 experts x 8 (8 in 1)'
        """
        text = f"{self.n_experts} experts x {self.d_expert:,}" if self.n_experts > 1 else f"{self.d_ff:,}"
        others = sorted(set(self.widths or ()) - {self.d_ff})
        counts = ", ".join(f"{width:,} in {self.widths.count(width)}" for width in others) if self.widths else ""
        return f"{text} ({counts})" if counts else text

    @property
    def d_expert(self) -> int:
        """Neurons of one expert; of the whole layer in a dense model."""
        return self.d_ff // self.n_experts

    @property
    def n_neurons(self) -> int:
        return self.n_layers * self.d_ff if self.widths is None else sum(self.widths)

    def address(self, layer: int, index: int) -> str:
        """A neuron in words, for people; with experts the index counts within the expert.

        Example:
            >>> ModelIdentity("m", None, "mixtral", "f", 2, 4, d_ff=16, vocab_size=9, n_experts=2).address(1, 11)
            'layer   1  expert   1  index      3'
        """
        sparse = self.n_experts > 1 and self.width(layer) == self.d_ff
        expert, within = divmod(index, self.d_expert) if sparse else (0, index)
        place = f"layer {layer:>3}" + (f"  expert {expert:>3}" if sparse else "")
        return f"{place}  index {within:>6}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Neurons:
    """K ranked neurons, best first.

    Args:
        layer: int64 ``[neuron]``.
        index: int64 ``[neuron]``, coordinate within the layer's d_ff.
        score: float64 ``[neuron]``, what the criterion ranked by.
        correct_mean: float32 ``[neuron]``, class mean over correct traces.
        incorrect_mean: float32 ``[neuron]``, class mean over incorrect traces.
        criterion: name of the criterion.
        model: the model whose activations were contrasted.
        facts: counts and settings that go into the file (contrast counts, scope, excluded neurons).

    Raises:
        InputError: lengths differ, an address lies outside the model, or a neuron appears twice.
    """

    layer: NDArray[np.int64]
    index: NDArray[np.int64]
    score: NDArray[np.float64]
    correct_mean: NDArray[np.float32]
    incorrect_mean: NDArray[np.float32]
    criterion: str
    model: ModelIdentity
    facts: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_addresses(self.layer, self.index, self.model)
        lengths = {len(column) for column in (self.layer, self.index, self.score, self.correct_mean, self.incorrect_mean)}
        if len(lengths) != 1:
            raise InputError(f"columns of a Neurons differ in length: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.layer)

    @property
    def mean_difference(self) -> NDArray[np.float32]:
        """``correct_mean - incorrect_mean``, the direction from incorrect to correct reasoning."""
        return self.correct_mean - self.incorrect_mean

    @property
    def share(self) -> float:
        """The set's share of all neurons of the model."""
        return len(self) / self.model.n_neurons

    def top(self, k: int) -> "Neurons":
        """The k best neurons; raises InputError when there are fewer."""
        if not 0 < k <= len(self):
            raise InputError(f"asked for the top {k} of a set of {len(self)} neurons; k must lie between 1 and {len(self)}")
        return self.take(np.arange(k))

    def take(self, rows: NDArray[np.int64]) -> "Neurons":
        """Some of the neurons, in the given order of their positions in the set."""
        columns = (self.layer, self.index, self.score, self.correct_mean, self.incorrect_mean)
        return Neurons(*(column[rows] for column in columns), self.criterion, self.model, self.facts)  # type: ignore[arg-type]

    def steering(
        self,
        intervention: "str | Intervention" = "add",
        strength: float = 1.0,
        gate: "AnyGate | None" = None,
        scope: "PositionScope" = "generated",
    ) -> "Steering":
        """What an intervention does to these neurons, ready to attach.

        Args:
            intervention: a key of :data:`trimtab.interventions.INTERVENTIONS`, or a function of your own.
            strength: multiplies the intervention.
            gate: decides from each prompt whether to steer; None steers always.
            scope: the positions that are steered.

        Raises:
            InputError: an unknown intervention or scope, a strength that is not finite, or a gate without a threshold.
        """
        from trimtab.gate import ALWAYS
        from trimtab.interventions import named_intervention
        from trimtab.steering import Steering

        name, function = named_intervention(intervention)
        facts = {**self.facts, "criterion": self.criterion, "intervention": name}
        return Steering.of(self, strength, scope, ALWAYS if gate is None else gate, facts, function)

    def __repr__(self) -> str:
        lines = [f"{_placed(self)}, ranked by {self.criterion}"]
        if len(self):
            lines.append(f"scores {self.score[0]:.4g} to {self.score[-1]:.4g}")
        n = [self.facts.get(name) for name in ("n_correct", "n_incorrect", "n_problems")]
        if all(isinstance(count, int) for count in n):
            lines[-1] += f"; of {n[0]:,} correct and {n[1]:,} incorrect traces, {counted(n[2], 'problem')} with both"  # type: ignore[arg-type]
        return "\n".join(lines)

    def to_pandas(self) -> "pandas.DataFrame":
        """One row a neuron, best first: ``rank, layer, index, score, correct_mean, incorrect_mean, mean_difference``."""
        import pandas

        columns = {name: getattr(self, name) for name in ("layer", "index", "score", "correct_mean", "incorrect_mean")}
        return pandas.DataFrame({"rank": np.arange(1, len(self) + 1), **columns, "mean_difference": self.mean_difference})

    def plot(self) -> "plotly.graph_objects.Figure":
        """Neurons per layer, and the mean difference of the best."""
        from trimtab.report.frames import neurons_figure

        return neurons_figure(self)

    def _repr_html_(self) -> str:
        return as_html(repr(self), self.to_pandas())


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class NeuronList:
    """Neurons that somebody else selected, in their order: addresses and at most a difference each, without the class means.

    Reading what the list does not hold raises, so an intervention that needs it cannot steer by a number that nobody measured.

    Args:
        layer, index: int64 ``[neuron]``.
        criterion: what selected them, as far as that is known.
        model: the model that the list was made for.
        weight: float32 ``[neuron]``, the difference ``correct_mean - incorrect_mean``; None where the list holds addresses only.
        facts: provenance.

    Raises:
        InputError: lengths differ, an address lies outside the model, or a neuron appears twice.

    Example:
        >>> model = ModelIdentity("m", None, "qwen3", "f", n_layers=2, d_model=4, d_ff=8, vocab_size=9)
        >>> NeuronList(np.array([0, 1]), np.array([3, 3]), "a friend's", model).correct_mean
        Traceback (most recent call last):
        trimtab.errors.InputError: ...
    """

    layer: NDArray[np.int64]
    index: NDArray[np.int64]
    criterion: str
    model: ModelIdentity
    weight: NDArray[np.float32] | None = None
    facts: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_addresses(self.layer, self.index, self.model)
        if self.weight is not None and len(self.weight) != len(self.layer):
            raise InputError(f"a list of {len(self.layer)} neurons has {len(self.weight)} weights; give one each, or none")

    def __len__(self) -> int:
        return len(self.layer)

    @property
    def mean_difference(self) -> NDArray[np.float32]:
        """``correct_mean - incorrect_mean``, as the list gives it."""
        if self.weight is None:
            raise self._lacks(
                "no differences, so no constant can be made of it: use an intervention with a factor, scale or ablate"
            )
        return self.weight

    @property
    def correct_mean(self) -> NDArray[np.float32]:
        """Raises InputError: the class means are not known."""
        raise self._lacks("no class means: use add, scale or ablate, or record and rank the model's own traces")

    incorrect_mean = correct_mean

    def top(self, k: int) -> "NeuronList":
        """The first k neurons; raises InputError when there are fewer."""
        if not 0 < k <= len(self):
            raise InputError(f"asked for the first {k} of a list of {len(self)} neurons; k must lie between 1 and {len(self)}")
        weight = None if self.weight is None else self.weight[:k]
        return NeuronList(self.layer[:k], self.index[:k], self.criterion, self.model, weight, self.facts)

    def __repr__(self) -> str:
        holds = "addresses only" if self.weight is None else "with a difference each"
        return f"{_placed(self)}, listed by {self.criterion}, {holds}"

    def to_pandas(self) -> "pandas.DataFrame":
        """One row a neuron in the list's order: ``layer, index``, and ``mean_difference`` where the list has it."""
        import pandas

        weight = {} if self.weight is None else {"mean_difference": self.weight}
        return pandas.DataFrame({"layer": self.layer, "index": self.index, **weight})

    def _repr_html_(self) -> str:
        return as_html(repr(self), self.to_pandas())

    def _lacks(self, what: str) -> InputError:
        return InputError(f"the list of neurons ({self.criterion}) holds {what}")


def _placed(neurons: Neurons | NeuronList) -> str:
    model = neurons.model
    return (
        f"{counted(len(neurons), 'neuron')} of {model.name} ({100 * len(neurons) / model.n_neurons:.2g} %), "
        f"in {len(np.unique(neurons.layer))} of {counted(model.n_layers, 'layer')}"
    )


def check_addresses(layer: NDArray[np.int64], index: NDArray[np.int64], model: ModelIdentity) -> None:
    """Raise InputError unless every (layer, index) exists in the model and appears once."""
    outside = (layer < 0) | (layer >= model.n_layers) | (index < 0) | (index >= model.d_ff)
    if model.widths is not None:
        outside |= index >= np.array(model.widths)[np.clip(layer, 0, model.n_layers - 1)]
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        where = f"{model.n_layers} layers of {model.d_ff} neurons"
        if model.widths is not None and 0 <= layer[first] < model.n_layers:
            where = f"{model.width(int(layer[first]))} neurons there"
        raise InputError(
            f"neuron (layer {layer[first]}, index {index[first]}) is outside {model.name}, which has {where}",
            code="neuron-outside",
        )
    if len(np.unique(layer * model.d_ff + index)) != len(layer):
        raise InputError("a neuron appears twice in one set; every (layer, index) may appear once")
