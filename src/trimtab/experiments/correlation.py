"""Correlations of a few neurons of one model with all neurons of another on the same texts, from sums alone."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trimtab.analysis.passes import batches
from trimtab.errors import NotEnoughDataError
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
