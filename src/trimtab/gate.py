"""The gate: when to steer, decided from the last token of the prompt before anything is generated."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError

GateKind = Literal["always", "never", "logistic"]
GateMode = Literal["hard", "proportional"]


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """``p(fail) = sigmoid(w . x + b)`` over selected neurons of the last prompt token; fires when ``p >= threshold``.

    ``hard``: g = 1 when it fires, else 0. ``proportional``: ``g = clip((p - t) / (1 - t), 0, 1)``. ``always`` and ``never`` read
    nothing.

    Args:
        layer, index: int64 ``[feature]``, the neurons it reads.
        weight: float32 ``[feature]``, with the standardisation and the calibration folded in.
        facts: AUROC with interval, text-only baseline, counts: what the model card prints.
    """

    kind: GateKind
    mode: GateMode = "hard"
    layer: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    index: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    weight: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    bias: float = 0.0
    threshold: float = 0.5
    facts: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.layer) == len(self.index) == len(self.weight):
            raise InputError("a gate needs one layer, index and weight per feature")
        if self.kind == "logistic" and not len(self.layer):
            raise InputError("a logistic gate needs at least one feature")
        if not 0.0 < self.threshold < 1.0 or not np.isfinite(self.weight).all() or not np.isfinite(self.bias):
            raise InputError("a gate needs finite weights and a threshold between 0 and 1")

    def probability(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """p(fail) of ``[row, feature]`` activations, in the order of ``layer`` and ``index``."""
        if self.kind == "logistic":
            logit = features.astype(np.float64) @ self.weight.astype(np.float64) + self.bias
            return np.exp(-np.logaddexp(0.0, -logit))
        return np.full(len(features), 1.0 if self.kind == "always" else 0.0)

    def value(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """g in [0, 1] for each p(fail)."""
        if self.kind != "logistic":
            return np.full(len(probability), 1.0 if self.kind == "always" else 0.0)
        if self.mode == "hard":
            return (probability >= self.threshold).astype(np.float64)
        return np.clip((probability - self.threshold) / (1.0 - self.threshold), 0.0, 1.0)


ALWAYS = Gate("always")
NEVER = Gate("never")
