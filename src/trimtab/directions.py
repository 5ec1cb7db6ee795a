"""Directions of the residual stream: what is added to the output of a decoder block, beside neurons of its FFN."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trimtab.display import as_html, counted
from trimtab.errors import InputError
from trimtab.neurons import ModelIdentity

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

    from trimtab.gate import AnyGate
    from trimtab.steering import PositionScope, Steering


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Directions:
    """One vector for each of some layers, to be added to what the layer's decoder block puts out.

    Source: contrastive activation addition (Rimsky et al., arXiv 2312.06681) for the difference of class means, the criterion
    ``mean-difference``. Layer l is the output of block l, counted from 0, which transformers calls ``hidden_states[l + 1]``.

    Args:
        layer: int64 ``[direction]``, ascending, each at most once.
        vector: float32 ``[direction, d_model]``, at unit strength.
        criterion: what the vectors were made by.
        model: whose residual stream they are of.
        facts: provenance.

    Raises:
        InputError: a layer or a width that the model has not, a layer twice or out of order, or a value that is not finite.

    Example:
        >>> model = ModelIdentity("m", None, "qwen3", "f", n_layers=2, d_model=4, d_ff=8, vocab_size=9)
        >>> Directions(np.array([1]), np.ones((1, 4), np.float32), "mean-difference", model)
        1 direction of m by mean-difference, after layer 1 of 2 layers
        norm 2
    """

    layer: NDArray[np.int64]
    vector: NDArray[np.float32]
    criterion: str
    model: ModelIdentity
    facts: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_directions(self.layer, self.vector, self.model)

    def __len__(self) -> int:
        return len(self.layer)

    @property
    def norm(self) -> NDArray[np.float32]:
        """Of each vector, float32 ``[direction]``."""
        return np.linalg.norm(self.vector, axis=1).astype(np.float32)

    def at(self, *layers: int) -> "Directions":
        """The directions of some layers. Raises InputError for a layer that has none."""
        absent = sorted(set(layers) - set(self.layer.tolist()))
        if absent or not layers:
            raise InputError(f"there is no direction for layer {absent or 'none'}; there are {layers_in_words(self.layer)}")
        kept = np.isin(self.layer, layers)
        return replace(self, layer=self.layer[kept], vector=self.vector[kept])

    def steering(self, strength: float = 1.0, gate: "AnyGate | None" = None, scope: "PositionScope" = "generated") -> "Steering":
        """``h' = h + strength * g * vector`` after each of these layers, ready to attach.

        Args:
            strength: multiplies the vectors.
            gate: decides from each prompt whether to steer; None steers always.
            scope: the positions that are steered.

        Raises:
            InputError: an unknown scope, a strength that is not finite, or a gate without a threshold.
        """
        from trimtab.gate import ALWAYS
        from trimtab.steering import Steering

        nothing = np.zeros(0, np.int64)
        none = np.zeros(0, np.float32)
        facts = {**self.facts, "criterion": self.criterion, "intervention": "add direction"}
        chosen = ALWAYS if gate is None else gate
        return Steering(nothing, nothing, none, none, strength, scope, chosen, self.model, facts, self.layer, self.vector)

    def __repr__(self) -> str:
        where = f"after {layers_in_words(self.layer)} of {counted(self.model.n_layers, 'layer')}"
        low, high = float(self.norm.min(initial=np.inf)), float(self.norm.max(initial=0.0))
        norms = "" if not len(self) else f"\nnorm {low:.3g}" if low == high else f"\nnorms {low:.3g} to {high:.3g}"
        return f"{counted(len(self), 'direction')} of {self.model.name} by {self.criterion}, {where}{norms}"

    def to_pandas(self) -> "pandas.DataFrame":
        """One row a layer: ``layer, norm``."""
        import pandas

        return pandas.DataFrame({"layer": self.layer, "norm": self.norm})

    def plot(self) -> "plotly.graph_objects.Figure":
        """The norm of each layer's direction."""
        from trimtab.report.frames import directions_frame
        from trimtab.report.plots import draw

        return draw(directions_frame(self.layer.tolist(), self.norm.tolist(), self.criterion))

    def _repr_html_(self) -> str:
        return as_html(repr(self), self.to_pandas())


def layers_in_words(layers: NDArray[np.int64]) -> str:
    """Layers for a person.

    Example:
        >>> layers_in_words(np.array([0, 1, 2, 7]))
        'layers 0 to 2, 7'
    """
    if not len(layers):
        return "no layer"
    runs = np.split(layers, np.flatnonzero(np.diff(layers) != 1) + 1)
    parts = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run.tolist())) for run in runs]
    return f"layer{'' if len(layers) == 1 else 's'} {', '.join(parts)}"


def check_directions(layer: NDArray[np.int64], vector: NDArray[np.float32], model: ModelIdentity) -> None:
    """Raise InputError unless every direction has a layer of the model, its width, and finite values."""
    if len(layer) != len(vector) or vector.ndim != 2:
        raise InputError(f"directions need one vector a layer, [direction, d_model]; got {len(layer)} and {list(vector.shape)}")
    if not len(layer):
        return
    if vector.shape[1] != model.d_model:
        raise InputError(
            f"a direction of {vector.shape[1]} numbers does not fit {model.name}, whose residual stream is {model.d_model} wide"
        )
    if layer[0] < 0 or layer[-1] >= model.n_layers or (np.diff(layer) <= 0).any():
        raise InputError(
            f"directions for layers {layer.tolist()[:8]} of {model.name}, which has layers 0 to {model.n_layers - 1}; give each "
            "layer at most once, in order"
        )
    if not np.isfinite(vector).all():
        bad = layer[~np.isfinite(vector).all(axis=1)]
        raise InputError(f"the direction of {layers_in_words(bad)} holds NaN or infinity; a direction needs finite numbers")
