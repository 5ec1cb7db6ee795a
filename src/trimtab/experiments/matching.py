"""Which neurons of another model do what these do: correlations on the same texts, and a one-to-one match by them."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from trimtab.analysis.passes import batches
from trimtab.errors import InputError, NotEnoughDataError
from trimtab.model import LanguageModel
from trimtab.model.hook_points import hook_neurons
from trimtab.moments import TokenScope
from trimtab.recording import batch_features
from trimtab.recording.tokens import right_padded, span
from trimtab.traces import Trace

BATCH_TOKENS = 4_096


class TextPair(NamedTuple):
    """One text as each of two models reads it: the same ids, or those of each one's tokenizer."""

    source: Trace
    target: Trace


@dataclass(frozen=True, slots=True, eq=False)
class Addresses:
    """Addresses, int64 ``[neuron]`` each."""

    layer: NDArray[np.int64]
    index: NDArray[np.int64]


class Correlations(NamedTuple):
    """Pearson correlations, float64 ``[source neuron, target neuron]``, target neurons at ``layer * d_ff + index``.

    Args:
        n: observations: tokens, or texts.
        paired: of the same observations.
        shuffled: of source observations in random order within a batch: what chance alone reaches.
    """

    n: int
    paired: NDArray[np.float64]
    shuffled: NDArray[np.float64]


class CrossMoments:
    """Means, squared deviations and products of deviations of paired rows, batch by batch.

    Each batch is centred by its own means, summed in float32 and merged in float64 (Chan, Golub and LeVeque 1983), so that
    neurons with a large mean lose no digits.
    """

    def __init__(self, n_source: int, n_target: int) -> None:
        self.n = 0
        self._means = np.zeros(n_source), np.zeros(n_target)
        self._squares = np.zeros(n_source), np.zeros(n_target)
        self._products = np.zeros((n_source, n_target))

    def add(self, source: Tensor, target: Tensor) -> None:
        """Rows ``[n, source]`` and ``[n, target]``, float32 on one device."""
        n, total = len(source), self.n + len(source)
        means = [side.mean(0) for side in (source, target)]
        centred = [side - mean for side, mean in zip((source, target), means, strict=True)]
        shifts = [_float64(mean) - old for mean, old in zip(means, self._means, strict=True)]
        weight = self.n * n / total
        self._products += _float64(centred[0].T @ centred[1]) + weight * np.outer(*shifts)
        for side, shift, mean, squares in zip(centred, shifts, self._means, self._squares, strict=True):
            squares += _float64(side.square().sum(0)) + weight * shift**2
            mean += shift * (n / total)
        self.n = total

    def correlation(self) -> NDArray[np.float64]:
        """``[source, target]``; 0 for a neuron that never varies."""
        scale = np.sqrt(np.outer(*self._squares))
        return np.divide(self._products, scale, out=np.zeros_like(scale), where=scale > 0)


@torch.inference_mode()
def correlate(
    source: LanguageModel,
    target: LanguageModel,
    pairs: Sequence[TextPair],
    neurons: Addresses,
    scope: TokenScope,
    *,
    pooled: bool = False,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> Correlations:
    """Run both models over the texts, teacher-forced, and correlate neurons of the source with every neuron of the target.

    Memory holds one batch of one layer's activations and two matrices ``[source neuron, target neuron]``.

    Args:
        pairs: the texts; of one text both traces have the same id.
        neurons: of the source.
        scope: the tokens that count.
        pooled: correlate each text's mean over its tokens, for tokenizers that differ; else token by token, which needs the same
            ids on both sides.
        seed: of the shuffled order.
        batch_tokens: rows x longest row of one forward.

    Raises:
        InputError: a trace without a token in the scope.
        NotEnoughDataError: fewer than three observations, whose correlations are all 1.
    """
    of_source = {pair.target.id: pair.source for pair in pairs}
    sums = [[CrossMoments(len(neurons.layer), target.d_ff) for _ in range(target.n_layers)] for _ in range(2)]
    generator = torch.Generator().manual_seed(seed)
    for batch in batches(target, [pair.target for pair in pairs], batch_tokens):
        rows = batch_features(source, [of_source[trace.id] for trace in batch], neurons.layer, neurons.index, scope)
        values = torch.from_numpy(np.stack([row.mean(0) for row in rows]) if pooled else np.concatenate(rows))
        shuffled = values[torch.randperm(len(values), generator=generator)]
        ids = right_padded(target, batch)
        pooling = _Pooling([span(trace, scope) for trace in batch], ids.shape[1], pooled)
        with ExitStack() as hooks:
            for layer in range(target.n_layers):
                see = _adding([(values, sums[0][layer]), (shuffled, sums[1][layer])], pooling)
                hooks.callback(hook_neurons(target.layout, layer, see, torch.arange(target.d_ff)).remove)
            target.layout.base(input_ids=ids.to(target.device), use_cache=False)
    n = sums[0][0].n
    if n < 3:
        raise NotEnoughDataError(f"a correlation needs three observations or more, got {n}; give more texts")
    paired, shuffled = (np.concatenate([layer.correlation() for layer in layers], axis=1) for layers in sums)
    return Correlations(n, paired, shuffled)


class _Pooling:
    """Which rows of a batch's activations are observations: the tokens of a scope, or their mean per trace."""

    def __init__(self, spans: Sequence[tuple[int, int]], width: int, pooled: bool) -> None:
        weights = torch.zeros(len(spans), width)
        for row, (start, stop) in enumerate(spans):
            weights[row, start:stop] = 1 / (stop - start)
        self._weights = weights if pooled else None
        self._tokens = weights.flatten().nonzero().squeeze(1)

    def observations(self, activation: Tensor) -> Tensor:
        """Float32 ``[observation, d_ff]`` from the activations of a layer, in the order of the traces and their tokens."""
        flat = activation.reshape(-1, activation.shape[-1])  # some blocks flatten batch and seq
        if self._weights is None:
            return flat.index_select(0, self._tokens.to(flat.device)).float()
        return torch.einsum("bs,bsd->bd", self._weights.to(flat.device), flat.float().view(*self._weights.shape, -1))


def _adding(sides: Sequence[tuple[Tensor, CrossMoments]], pooling: _Pooling):
    def see(activation: Tensor) -> None:
        observations = pooling.observations(activation)
        for values, sums in sides:
            sums.add(values.to(observations.device), observations)

    return see


def _float64(values: Tensor) -> NDArray[np.float64]:
    return values.cpu().double().numpy()


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
        InputError: the target has fewer neurons than are to be matched, or layers of different widths.
        NotEnoughDataError: too few texts for either half.
    """
    if target.layout.widths is not None:
        raise InputError(f"{target.identity.name} has layers of different widths, between which neurons cannot be matched")
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
