"""Mergeable moments of activations: all that any criterion reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError

TokenScope = Literal["all", "response", "prompt", "last-prompt"]
MOMENTS = ("sum", "magnitude", "square")
CONTRIBUTION = "contribution"
"""The one moment that reads the FFN's output beside the activations, and so is recorded from finished traces alone."""
ALL_MOMENTS = (*MOMENTS, CONTRIBUTION)
MAX_STATE_BYTES = 2 * 2**30
"""Bound on what is kept while a recording is read."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Sums over the tokens of each trace.

    ``sum = sum_t a_tj``, ``magnitude = sum_t |a_tj|``, ``square = sum_t a_tj^2``, each float32 ``[trace, layer, d_ff]`` or None
    when it was not recorded. A token has no activation in an expert that it is not routed to, and so adds nothing there.

    ``contribution = sum_t |w_t a_tj| / ||o_t||``, where ``o_t`` is the output of the layer's down projection at token t, or of
    its experts together, and w_t the routing weight of the neuron's expert, 1 in a dense layer. Times the norm of the neuron's
    column it is CETT (H-Neurons, arXiv 2512.01797). A token whose output is exactly 0 adds nothing.

    Args:
        count: number of tokens, int64 ``[trace]``; for a mixture of experts those routed to each expert, int64
            ``[trace, layer, expert]``, with d_ff the experts' neurons side by side. Where layers have different numbers of
            neurons, blocks of one size stand for experts, and a block that a layer has not counts no token.
        tokens: for a mixture of experts the number of all tokens, int64 ``[trace]``; None for a dense model, where it is
            ``count``.

    Raises:
        InputError: arrays of different traces, or experts that do not divide d_ff.
    """

    count: NDArray[np.int64]
    sum: NDArray[np.float32] | None = None
    magnitude: NDArray[np.float32] | None = None
    square: NDArray[np.float32] | None = None
    tokens: NDArray[np.int64] | None = None
    contribution: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        for name in ALL_MOMENTS:
            array = getattr(self, name)
            if array is not None and len(array) != len(self.count):
                raise InputError(f"moments of {len(array)} traces with counts of {len(self.count)}")
            if (
                array is not None
                and self.is_mixture
                and (array.shape[1] != self.count.shape[1] or array.shape[2] % self.n_experts)
            ):
                raise InputError(f"moments of [layer, d_ff] {list(array.shape[1:])} with counts of {list(self.count.shape[1:])}")
        if self.is_mixture != (self.tokens is not None):
            raise InputError(
                "moments of experts need `tokens`, the number of tokens of each trace, and dense ones must not have it"
            )

    @property
    def is_mixture(self) -> bool:
        """Whether they are of experts, so that a trace may have no token at a neuron."""
        return self.count.ndim == 3

    @property
    def n_experts(self) -> int:
        """Experts of a layer, 1 for a dense model."""
        return self.count.shape[2] if self.is_mixture else 1

    def merge(self, other: "Moments") -> "Moments":
        """Moments of the same traces over the tokens of both; token ranges must not overlap."""

        def add(mine: NDArray[np.float32] | None, theirs: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
            if (mine is None) != (theirs is None):
                raise InputError("one side of a merge lacks a moment that the other has")
            return None if mine is None or theirs is None else mine + theirs

        return Moments(
            self.count + other.count,
            add(self.sum, other.sum),
            add(self.magnitude, other.magnitude),
            add(self.square, other.square),
            None if self.tokens is None or other.tokens is None else self.tokens + other.tokens,
            add(self.contribution, other.contribution),
        )

    def take(self, rows: Sequence[int]) -> "Moments":
        """Moments of some of the traces, in the given order."""
        chosen = np.asarray(rows, np.int64)
        arrays = {name: None if (array := getattr(self, name)) is None else array[chosen] for name in ALL_MOMENTS}
        return Moments(self.count[chosen], **arrays, tokens=None if self.tokens is None else self.tokens[chosen])

    def mean(self) -> NDArray[np.float32]:
        """``m1 = sum / count`` per trace; NaN exactly where none of the trace's tokens is routed to the neuron's expert."""
        return self._per_token(self.sum, "sum")

    def mean_magnitude(self) -> NDArray[np.float32]:
        """``mabs = magnitude / count`` per trace; NaN as in :meth:`mean`."""
        return self._per_token(self.magnitude, "magnitude")

    def rms(self) -> NDArray[np.float32]:
        """``sqrt(square / count)`` per trace; NaN as in :meth:`mean`."""
        return np.sqrt(self._per_token(self.square, "square"))

    def mean_of_all_tokens(self) -> NDArray[np.float32]:
        """``sum / number of tokens`` per trace, never NaN: what a gate reads. A token is 0 in experts it is not routed to."""
        return self._recorded(self.sum, "sum") / self._some(self.count if self.tokens is None else self.tokens)

    def mean_contribution(self) -> NDArray[np.float32]:
        """``contribution / number of tokens`` per trace, never NaN: a neuron writes nothing where its expert is not asked."""
        return self._recorded(self.contribution, CONTRIBUTION) / self._some(self.count if self.tokens is None else self.tokens)

    def _per_token(self, array: NDArray[np.float32] | None, name: str) -> NDArray[np.float32]:
        recorded = self._recorded(array, name)
        if self.tokens is None:
            return recorded / self._some(self.count)
        self._some(self.tokens)
        count = self.count[..., None].astype(np.float32)
        by_expert = recorded.reshape(*self.count.shape, -1)
        mean = np.divide(by_expert, count, out=np.full_like(by_expert, np.nan), where=count > 0)
        return mean.reshape(recorded.shape)

    def _recorded(self, array: NDArray[np.float32] | None, name: str) -> NDArray[np.float32]:
        if array is None:
            raise InputError(f"moment {name!r} was not recorded; record again with it in `moments`", code="moment-not-recorded")
        return array

    def _some(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """The number of tokens as a divisor, ``[trace, 1, 1]``."""
        if (tokens == 0).any():
            raise InputError(f"{int((tokens == 0).sum())} traces have no token in this scope and so no mean")
        return tokens[:, None, None].astype(np.float32)


def layer_blocks(n_layers: int, layer_bytes: int, max_bytes: int, at_least: int = 1) -> list[tuple[int, int]]:
    """First and last + 1 of blocks of layers of nearly one size.

    Args:
        n_layers: of the recording; without any there is one empty block.
        layer_bytes: what is kept of a layer.
        max_bytes: bound on what is kept of a block; one layer is the smallest.
        at_least: this many blocks, where there are as many layers.

    Example:
        >>> layer_blocks(28, 10, 100)
        [(0, 9), (9, 18), (18, 28)]
    """
    height = max(1, max_bytes // layer_bytes if layer_bytes else n_layers)
    n = max(1, min(n_layers, max(at_least, -(-n_layers // height))))
    edges = [i * n_layers // n for i in range(n + 1)]
    return list(pairwise(edges))
