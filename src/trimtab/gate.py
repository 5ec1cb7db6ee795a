"""Gates: when to steer, decided from the prompt before anything is generated, or again at each token of the response."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from trimtab.display import as_html, counted
from trimtab.errors import InputError

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

GateKind = Literal["always", "never", "logistic"]
GateMode = Literal["hard", "proportional"]
Pooling = Literal["last", "mean"]
PromptScope = Literal["last-prompt", "prompt"]
RunningAction = Literal["open", "close", "scale"]
Join = Literal["and", "or"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Gate:
    """``p(fail) = sigmoid(w . x + b)`` over selected neurons of the prompt; fires when ``p >= threshold``.

    ``hard``: g = 1 when it fires, else 0. ``proportional``: ``g = clip((p - t) / (1 - t), 0, 1)``. ``always`` and ``never`` read
    nothing.

    Args:
        layer, index: int64 ``[feature]``, the neurons it reads.
        weight: float32 ``[feature]``, with the standardisation and the calibration folded in.
        threshold: None until one is chosen; a gate that reads needs one before anything is steered behind it.
        facts: AUROC with interval, text-only baseline, counts: what the model card prints.
        pooling: x is the activation of the ``last`` prompt token, or the ``mean`` over all of the prompt's tokens.
    """

    kind: GateKind
    mode: GateMode = "hard"
    layer: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    index: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    weight: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    bias: float = 0.0
    threshold: float | None = None
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
        """Its name in reports."""
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
        # a gate that reads nothing was always written with 0.5, and keeps its digest too
        threshold = self.threshold if self.reads else 0.5
        return (self.kind, self.mode, float(self.bias), _number(threshold), *pooling)

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
        return _value(probability, self.cutoff, self.mode)

    @property
    def cutoff(self) -> float:
        """The threshold as a number. Raises InputError where none was chosen."""
        # p(fail) of a gate that reads nothing is 1 or 0, so any number between them does
        return _chosen(self.threshold) if self.reads else 0.5

    def with_threshold(self, threshold: float) -> Self:
        """The same gate with a threshold: chosen on the validation split, as by :func:`trimtab.gating.youden`."""
        return replace(self, threshold=threshold)

    def __repr__(self) -> str:
        return _shown(self) if self.reads else f"gate {self.kind!r}: steers {'every' if self.kind == 'always' else 'no'} prompt"

    def to_pandas(self) -> "pandas.DataFrame":
        """One row a neuron that it reads: ``layer, index, weight``."""
        import pandas

        return pandas.DataFrame({"layer": self.layer, "index": self.index, "weight": self.weight})

    def plot(self) -> "plotly.graph_objects.Figure":
        """ROC and calibration on the validation problems. Needs the extra ``report``."""
        from trimtab.report.frames import gate_figure

        return gate_figure(self)

    def _repr_html_(self) -> str:
        return as_html(repr(self), self.to_pandas())


@dataclass(frozen=True, slots=True, eq=False, repr=False)
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
    threshold: float | None = None
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
        return (self.kind, self.mode, self.hidden.shape, float(self.query_bias), float(self.bias), _number(self.threshold))

    def probability(self, features: Sequence[NDArray[np.float32]]) -> NDArray[np.float64]:
        """p(fail) of prompts, each given as the ``[token, feature]`` activations of all its tokens."""
        return _sigmoid(np.array([self._logit(tokens.astype(np.float64)) for tokens in features], np.float64))

    def value(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """g in [0, 1] for each p(fail)."""
        return _value(probability, self.cutoff, self.mode)

    @property
    def cutoff(self) -> float:
        """The threshold as a number. Raises InputError where none was chosen."""
        return _chosen(self.threshold)

    def with_threshold(self, threshold: float) -> Self:
        """The same gate with a threshold: chosen on the validation split, as by :func:`trimtab.gating.youden`."""
        return replace(self, threshold=threshold)

    def __repr__(self) -> str:
        return _shown(self)

    def to_pandas(self) -> "pandas.DataFrame":
        """One row a neuron that it reads: ``layer, index, query``."""
        import pandas

        return pandas.DataFrame({"layer": self.layer, "index": self.index, "query": self.query})

    def plot(self) -> "plotly.graph_objects.Figure":
        """ROC and calibration on the validation problems. Needs the extra ``report``."""
        from trimtab.report.frames import gate_figure

        return gate_figure(self)

    def _repr_html_(self) -> str:
        return as_html(repr(self), self.to_pandas())

    def _logit(self, tokens: NDArray[np.float64]) -> float:
        weight = np.exp(np.tanh(tokens @ self.query + self.query_bias))  # tanh bounds it: no overflow
        pooled = weight @ tokens / weight.sum()
        return float(self.output @ np.maximum(self.hidden @ pooled + self.offset, 0.0) + self.bias)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RunningGate:
    """Decides again at each token of the response, from the response so far.

    With ``a_t`` the activations at response token t = 1, 2, ..., as they were before that layer's own edit:
    ``m_t = m_(t-1) + r_t (w . a_t - m_(t-1))``, ``r_t = max(1 / t, 1 / memory)`` and ``p_t = sigmoid(m_t + b)``. What token t
    says holds from token t + 1 on, so that it does not matter which layers are read and which are steered. Until it has decided,
    ``close`` steers, and the others do not.

    * ``open`` steers once ``p_t >= threshold``, and stops once ``p_t < release``; without a release it goes on to the end.
    * ``close`` stops once ``p_t < threshold``, and steers again once ``p_t >= release``; without one it never does.
    * ``scale`` steers once ``p_t >= threshold`` with ``g = (p_t - low) / (1 - low)``, and stops once ``p_t < low``, where ``low``
      is the release, or the threshold without one.

    Args:
        layer, index: int64 ``[feature]``, the neurons it reads.
        weight: float32 ``[feature]``, with the standardisation and the calibration folded in.
        memory: 0 averages all tokens so far, 1 reads the last token alone, N is an exponential mean over about N tokens.
        action: see above.
        threshold: None until one is chosen.
        release: the second threshold, of a hysteresis: at most ``threshold``, for ``close`` at least; None for no second one.
        after: it decides from this token on.
        question: a gate that reads the prompt, to be joined with this one.
        join: ``and`` steers with the smaller of both g, ``or`` with the larger.
        facts: as of :class:`Gate`, and its assessment by time.
    """

    kind: ClassVar[Literal["running"]] = "running"
    reads: ClassVar[bool] = True

    layer: NDArray[np.int64]
    index: NDArray[np.int64]
    weight: NDArray[np.float32]
    bias: float = 0.0
    memory: int = 0
    action: RunningAction = "open"
    threshold: float | None = None
    release: float | None = None
    after: int = 1
    question: Gate | None = None
    join: Join = "and"
    facts: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.layer) == len(self.index) == len(self.weight) > 0:
            raise InputError("a running gate needs one layer, index and weight per feature, and at least one feature")
        _check(self.threshold, self.bias, self.weight)
        if self.action not in get_args(RunningAction) or self.join not in get_args(Join):
            raise InputError(
                f"a running gate's action is one of {', '.join(get_args(RunningAction))} and its join one of "
                f"{', '.join(get_args(Join))}; got {self.action!r} and {self.join!r}"
            )
        if self.memory < 0 or self.after < 1:
            raise InputError(f"a running gate needs memory >= 0 and after >= 1, in tokens; got {self.memory} and {self.after}")
        if self.question is not None and not self.question.reads:
            raise InputError(f"gate {self.question.kind!r} reads no prompt, so there is nothing to join; leave question out")
        self._check_release()

    def _check_release(self) -> None:
        if self.release is None:
            return
        if self.threshold is None or not 0.0 < self.release < 1.0:
            raise InputError(f"release is the second of two thresholds between 0 and 1; got {self.release} with {self.threshold}")
        if (self.release < self.threshold) if self.action == "close" else (self.release > self.threshold):
            least = "least" if self.action == "close" else "most"
            raise InputError(
                f"the release of a running gate that acts by {self.action!r} is at {least} its threshold {self.threshold}, "
                f"got {self.release}"
            )

    @property
    def scope(self) -> PromptScope:
        """The prompt tokens that its question gate reads."""
        return "last-prompt" if self.question is None else self.question.scope

    @property
    def mode(self) -> RunningAction:
        """What it does, in the place of a question gate's ``mode``."""
        return self.action

    @property
    def label(self) -> str:
        """Its name in reports."""
        read = {0: "mean so far", 1: "last token"}.get(self.memory, f"exponential mean over {self.memory} tokens")
        joined = "" if self.question is None else f", {self.join} {self.question.label}"
        return f"running, {read}{joined}"

    @property
    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Its arrays by name, and those of the question gate with ``question_`` before it."""
        own: dict[str, NDArray[np.generic]] = {"layer": self.layer, "index": self.index, "weight": self.weight}
        return own if self.question is None else own | {f"question_{name}": a for name, a in self.question.arrays.items()}

    @property
    def settings(self) -> tuple[object, ...]:
        """Its numbers and words."""
        own = (self.kind, self.action, float(self.bias), _number(self.threshold), _number(self.release), self.memory, self.after)
        return own if self.question is None else (*own, self.join, *self.question.settings)

    @property
    def cutoff(self) -> float:
        """The threshold as a number. Raises InputError where none was chosen, for it or for the question gate."""
        if self.question is not None:
            _ = self.question.cutoff
        return _chosen(self.threshold)

    @property
    def levels(self) -> tuple[float, float]:
        """It steers once ``p >= first``, and stops once ``p < second``."""
        threshold = self.cutoff
        if self.action == "close":
            return (2.0 if self.release is None else self.release), threshold  # p never is 2
        return threshold, (self.release if self.release is not None else 0.0 if self.action == "open" else threshold)

    @property
    def floor(self) -> float:
        """The least weight of a new token, ``1 / memory``."""
        return 0.0 if self.memory == 0 else 1.0 / self.memory

    @property
    def initial(self) -> float:
        """g of its own before it has decided."""
        return float(self.action == "close")

    def probability(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """p after each token ``[token]``, from the ``[token, feature]`` activations of a response."""
        return _sigmoid(running_mean(features.astype(np.float64) @ self.weight, self.memory) + self.bias)

    def value(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """Its own g at each token ``[token]``, from p after each token: what it said at the token before."""
        (on, off), steers, g = self.levels, self.action == "close", self.initial
        values = []
        for token, p in enumerate(probability.tolist(), 1):
            values.append(g)
            if token >= self.after:
                steers = p >= on or (steers and p >= off)
                g = float(steers) if self.action != "scale" else float(steers) * max(0.0, (p - off) / (1.0 - off))
        return np.array(values, np.float64)

    def with_threshold(self, threshold: float) -> Self:
        """The same gate with a threshold, chosen on the validation split."""
        return replace(self, threshold=threshold)

    def joined(self, question: Gate, join: Join) -> Self:
        """The same gate together with one that reads the prompt."""
        return replace(self, question=question, join=join)

    def __repr__(self) -> str:
        word = {"open": "steers from p(fail)", "close": "stops below p(fail)", "scale": "steers in proportion from p(fail)"}
        at = "no threshold chosen yet" if self.threshold is None else f"{word[self.action]} {self.threshold:.3f}"
        at += "" if self.release is None else f", back at {self.release:.3f}"
        first = f"gate: {self.label}, {counted(len(self.layer), 'neuron')} read, {at}, from token {self.after} on"
        area, counts = self.facts.get("held_out_auroc"), [self.facts.get(name) for name in ("n_train", "n_train_failed")]
        known = [f"AUROC {area:.3f} on held-out folds"] if isinstance(area, float) else []
        if all(isinstance(count, int) for count in counts):
            known.append(f"fitted on {counts[0]:,} responses, {counts[1]:,} of them failed")
        return f"{first}\n{', '.join(known)}" if known else first

    def to_pandas(self) -> "pandas.DataFrame":
        """One row a neuron that it reads: ``layer, index, weight``."""
        import pandas

        return pandas.DataFrame({"layer": self.layer, "index": self.index, "weight": self.weight})

    def plot(self) -> "plotly.graph_objects.Figure":
        """AUROC and warnings by the share of the response seen. Needs the extra ``report``."""
        from trimtab.report.frames import running_gate_figure

        return running_gate_figure(self)

    def _repr_html_(self) -> str:
        return as_html(repr(self), self.to_pandas())


@dataclass(frozen=True, slots=True, eq=False)
class RandomOpening:
    """The control of a running gate: it steers from a token that is drawn at random from those at which that gate opened.

    It reads nothing. The draw is a hash of the prompt's token ids, so that it is the same wherever the prompt stands.

    Args:
        opened: int64 ``[response]``, number of the first token that the running gate steered, from 1; 0 where it steered none.
        seed: of the draw.
    """

    kind: ClassVar[Literal["random-opening"]] = "random-opening"
    reads: ClassVar[bool] = True
    mode: ClassVar[Literal["hard"]] = "hard"
    scope: ClassVar[PromptScope] = "last-prompt"
    label: ClassVar[str] = "from a token drawn at random"
    threshold: ClassVar[None] = None
    cutoff: ClassVar[float] = 0.5
    bias: ClassVar[float] = 0.0
    layer: ClassVar[NDArray[np.int64]] = np.zeros(0, np.int64)
    index: ClassVar[NDArray[np.int64]] = np.zeros(0, np.int64)

    opened: NDArray[np.int64]
    seed: int = 0
    facts: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.opened) or (self.opened < 0).any():
            raise InputError("a random opening needs the numbers of the tokens to draw from, each 0 or more")

    @property
    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The tokens that it draws from."""
        return {"opened": self.opened}

    @property
    def settings(self) -> tuple[object, ...]:
        """Its numbers and words."""
        return (self.kind, self.seed)

    def draw(self, prompt: Sequence[int]) -> int:
        """Number of the first steered token of a response to a prompt, 0 for none."""
        drawn = hashlib.blake2b(repr((self.seed, *prompt)).encode(), digest_size=8).digest()
        return int(self.opened[int.from_bytes(drawn, "big") % len(self.opened)])


def running_mean(values: NDArray[np.float64], memory: int) -> NDArray[np.float64]:
    """The mean so far after each token, ``[token, ...]``; see :class:`RunningGate` for ``memory``.

    Example:
        >>> running_mean(np.array([1.0, 2.0, 6.0]), 0).tolist(), running_mean(np.array([1.0, 2.0, 6.0]), 2).tolist()
        ([1.0, 1.5, 3.0], [1.0, 1.5, 3.75])
    """
    means, mean = np.empty_like(values, np.float64), np.zeros(values.shape[1:])
    for token, value in enumerate(values):
        rate = max(1.0 / (token + 1), 1.0 / memory if memory else 0.0)
        mean = mean + rate * (value - mean)
        means[token] = mean
    return means


def _check(threshold: float | None, *values: float | NDArray[np.float32]) -> None:
    if threshold is not None and not 0.0 < threshold < 1.0:
        raise InputError(f"a gate has a threshold between 0 and 1 of p(fail), or None to choose it later; got {threshold}")
    if not all(np.isfinite(value).all() for value in values):
        raise InputError("a gate needs finite weights; NaN or infinity was given")


def _chosen(threshold: float | None) -> float:
    if threshold is None:
        raise InputError(
            "this gate has no threshold of p(fail) yet, so it cannot say when to steer; choose one on the validation split, "
            "gate.with_threshold(youden(failed, p_fail)), or let study.fit_gate() choose it",
            code="gate-without-threshold",
        )
    return float(threshold)


def _number(threshold: float | None) -> float | None:
    return None if threshold is None else float(threshold)


def _shown(gate: "PromptGate") -> str:
    fires = "no threshold chosen yet" if gate.threshold is None else f"fires at p(fail) >= {gate.threshold:.3f}, {gate.mode}"
    area, counts = gate.facts.get("held_out_auroc"), [gate.facts.get(f"n_train{side}") for side in ("", "_failed")]
    known = [f"AUROC {area:.3f} on held-out folds"] if isinstance(area, float) else []
    if all(isinstance(count, int) for count in counts):
        known.append(f"fitted on {counts[0]:,} problems, {counts[1]:,} of them failed")
    first = f"gate: {gate.label}, {counted(len(gate.layer), 'neuron')} read, {fires}"
    return f"{first}\n{', '.join(known)}" if known else first


def _sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0.0, -logit))


def _value(probability: NDArray[np.float64], threshold: float, mode: GateMode) -> NDArray[np.float64]:
    if mode == "hard":
        return (probability >= threshold).astype(np.float64)
    return np.clip((probability - threshold) / (1.0 - threshold), 0.0, 1.0)


PromptGate: TypeAlias = Gate | AttentionGate
AnyGate: TypeAlias = PromptGate | RunningGate | RandomOpening

ALWAYS = Gate("always")
NEVER = Gate("never")
