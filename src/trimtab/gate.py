"""Gates: when to steer, decided from the tokens of the prompt before anything is generated."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError

GateKind = Literal["always", "never", "logistic"]
GateMode = Literal["hard", "proportional"]
Pooling = Literal["last", "mean"]
PromptScope = Literal["last-prompt", "prompt"]


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """``p(fail) = sigmoid(w . x + b)`` over selected neurons of the prompt; fires when ``p >= threshold``.

    ``hard``: g = 1 when it fires, else 0. ``proportional``: ``g = clip((p - t) / (1 - t), 0, 1)``. ``always`` and ``never`` read
    nothing.

    Args:
        layer, index: int64 ``[feature]``, the neurons it reads.
        weight: float32 ``[feature]``, with the standardisation and the calibration folded in.
        facts: AUROC with interval, text-only baseline, counts: what the model card prints.
        pooling: x is the activation of the ``last`` prompt token, or the ``mean`` over all of the prompt's tokens.
    """

    kind: GateKind
    mode: GateMode = "hard"
    layer: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    index: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    weight: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    bias: float = 0.0
    threshold: float = 0.5
    facts: dict[str, object] = field(default_factory=dict)
    pooling: Pooling = "last"

    def __post_init__(self) -> None:
        if not len(self.layer) == len(self.index) == len(self.weight):
            raise InputError("a gate needs one layer, index and weight per feature")
        if self.kind == "logistic" and not len(self.layer):
            raise InputError("a logistic gate needs at least one feature")
        _check(self.threshold, self.bias, self.weight)

    @property
    def reads(self) -> bool:
        """Whether it reads the prompt, so that it can fire on one and not on another."""
        return self.kind == "logistic"

    @property
    def scope(self) -> PromptScope:
        """The prompt tokens it reads."""
        return "prompt" if self.pooling == "mean" else "last-prompt"

    @property
    def label(self) -> str:
        """What a person calls it."""
        if not self.reads:
            return self.kind
        return {"last": "logistic, last prompt token", "mean": "logistic, mean over the prompt"}[self.pooling]

    @property
    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Its arrays by name, all that decides p(fail) beside ``settings``."""
        return {"layer": self.layer, "index": self.index, "weight": self.weight}

    @property
    def settings(self) -> tuple[object, ...]:
        """Its numbers and words."""
        # artifacts made when the last token was the only choice keep their digest
        pooling = () if self.pooling == "last" else (self.pooling,)
        return (self.kind, self.mode, float(self.bias), float(self.threshold), *pooling)

    def probability(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """p(fail) of ``[row, feature]`` pooled activations, in the order of ``layer`` and ``index``."""
        if self.reads:
            # in one layout, since the order of the sums follows it
            return _sigmoid(features.astype(np.float64, order="C") @ self.weight.astype(np.float64) + self.bias)
        return np.full(len(features), 1.0 if self.kind == "always" else 0.0)

    def value(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """g in [0, 1] for each p(fail)."""
        if not self.reads:
            return np.full(len(probability), 1.0 if self.kind == "always" else 0.0)
        return _value(probability, self.threshold, self.mode)


@dataclass(frozen=True, slots=True, eq=False)
class AttentionGate:
    """AdaRAS's predictor: attention pooling over the prompt's tokens, then a small network.

    With ``x_t`` the activations at prompt token t: ``s_t = tanh(query . x_t + query_bias)``, ``x = sum_t softmax(s)_t x_t`` and
    ``p(fail) = sigmoid(output . relu(hidden @ x + offset) + bias)``. Standardisation is folded into the first two maps, the
    calibration into the last. It fires, and steers, as :class:`Gate` does.

    Args:
        layer, index: int64 ``[feature]``, the neurons it reads.
        query: float32 ``[feature]``.
        hidden: float32 ``[unit, feature]``.
        offset, output: float32 ``[unit]``.
        facts: as of :class:`Gate`.
    """

    kind: ClassVar[Literal["attention"]] = "attention"
    reads: ClassVar[bool] = True
    scope: ClassVar[PromptScope] = "prompt"
    label: ClassVar[str] = "attention over the prompt"

    layer: NDArray[np.int64]
    index: NDArray[np.int64]
    query: NDArray[np.float32]
    hidden: NDArray[np.float32]
    offset: NDArray[np.float32]
    output: NDArray[np.float32]
    query_bias: float = 0.0
    bias: float = 0.0
    mode: GateMode = "hard"
    threshold: float = 0.5
    facts: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, units = len(self.layer), len(self.offset)
        shapes = {name: array.shape for name, array in self.arrays.items()}
        row, unit = (n,), (units,)
        expected = {"layer": row, "index": row, "query": row, "hidden": (units, n), "offset": unit, "output": unit}
        if shapes != expected or not n or not units:
            raise InputError(f"an attention gate of {n} features and {units} units needs arrays of {expected}, got {shapes}")
        _check(self.threshold, self.bias, self.query_bias, self.query, self.hidden, self.offset, self.output)

    @property
    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Its arrays by name, all that decides p(fail) beside ``settings``."""
        names = ("layer", "index", "query", "hidden", "offset", "output")
        columns = (self.layer, self.index, self.query, self.hidden, self.offset, self.output)
        return dict(zip(names, columns, strict=True))

    @property
    def settings(self) -> tuple[object, ...]:
        """Its numbers and words."""
        return (self.kind, self.mode, self.hidden.shape, float(self.query_bias), float(self.bias), float(self.threshold))

    def probability(self, features: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """p(fail) of prompts, each given as the ``[token, feature]`` activations of all its tokens."""
        return _sigmoid(np.array([self._logit(tokens.astype(np.float64)) for tokens in features], np.float64))

    def value(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """g in [0, 1] for each p(fail)."""
        return _value(probability, self.threshold, self.mode)

    def _logit(self, tokens: NDArray[np.float64]) -> float:
        weight = np.exp(np.tanh(tokens @ self.query + self.query_bias))  # tanh bounds it: no overflow
        pooled = weight @ tokens / weight.sum()
        return float(self.output @ np.maximum(self.hidden @ pooled + self.offset, 0.0) + self.bias)


def _check(threshold: float, *values: float | NDArray[np.float32]) -> None:
    if not 0.0 < threshold < 1.0 or not all(np.isfinite(value).all() for value in values):
        raise InputError("a gate needs finite weights and a threshold between 0 and 1")


def _sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0.0, -logit))


def _value(probability: NDArray[np.float64], threshold: float, mode: GateMode) -> NDArray[np.float64]:
    if mode == "hard":
        return (probability >= threshold).astype(np.float64)
    return np.clip((probability - threshold) / (1.0 - threshold), 0.0, 1.0)


AnyGate: TypeAlias = Gate | AttentionGate

ALWAYS = Gate("always")
NEVER = Gate("never")
