"""Running sums over traces and over problems, in float64; per neuron where experts leave some without a value."""

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.moments import Moments

Presence: TypeAlias = NDArray[np.bool_] | None
"""Where there is a value, in the shape of the values; None is everywhere, as in every dense model."""


Times: TypeAlias = NDArray[np.bool_] | NDArray[np.int64] | int
"""How often a value counts: an integer for all neurons, or an array that broadcasts to the value; False and 0 leave it out."""


def presence(moments: Moments) -> Presence:
    """``[trace, layer, d_ff]``: in a mixture of experts, whether any token of the trace was routed to the neuron's expert."""
    if not moments.is_mixture:
        return None
    d_ff = next(array.shape[2] for array in (moments.sum, moments.magnitude, moments.square) if array is not None)
    # from the counts, not from NaN means: NaN in a token that was routed is a broken recording
    return np.repeat(moments.count > 0, d_ff // moments.n_experts, axis=2)


@dataclass(slots=True)
class Tally:
    """A running sum of values, and how many there were."""

    total: NDArray[np.float64]
    n: NDArray[np.int64] | int = 0

    def add(self, value: NDArray[np.floating], times: Times = 1) -> None:
        """Count a value so many times; where that is 0, the value may be NaN."""
        self.total += value if isinstance(times, int) else np.where(times > 0, value, 0) * times
        self.n = self.n + times

    def mean(self) -> NDArray[np.float64]:
        """NaN where there was no value."""
        with np.errstate(invalid="ignore"):
            return self.total / self.n


@dataclass(slots=True)
class Spread:
    """Welford's running mean and sum of squared deviations."""

    centre: NDArray[np.float64]
    squares: NDArray[np.float64]
    n: NDArray[np.int64] | int = 0

    def add(self, value: NDArray[np.float64], times: Times = 1) -> None:
        """Count a value so many times; where that is 0, the value may be NaN."""
        if not isinstance(times, int):
            value = np.where(times > 0, value, self.centre)
        self.n = self.n + times
        deviation = value - self.centre
        self.centre += deviation * times / np.maximum(self.n, 1)
        self.squares += times * deviation * (value - self.centre)

    def mean(self) -> NDArray[np.float64]:
        """NaN where there was no value."""
        return np.where(np.asarray(self.n) > 0, self.centre, np.nan)

    def variance(self) -> NDArray[np.float64]:
        """Sample variance (n - 1); NaN where there were fewer than two values."""
        n = np.asarray(self.n)
        return np.divide(self.squares, n - 1, out=np.full_like(self.squares, np.nan), where=n > 1)


@dataclass(slots=True)
class FiniteCheck:
    """Counts the traces that hold NaN or infinity, so that one error can name all of them.

    Args:
        first_layer: where the arrays begin.
    """

    first_layer: int = 0
    n_traces: int = 0
    n_broken: int = 0
    layers: set[int] = field(default_factory=set)

    def usable(self, arrays: list[NDArray[np.float32]], present: Presence) -> NDArray[np.bool_]:
        """Which traces are finite in every ``[trace, layer, d_ff]`` array, where they have a value."""
        usable = np.ones(len(arrays[0]), np.bool_)
        for values in arrays:
            finite = np.isfinite(values) if present is None else np.isfinite(values) | ~present
            rows, layers = np.nonzero(~finite.all(axis=2))
            usable[rows] = False
            self.layers.update(layers.tolist())
        self.n_traces += len(usable)
        self.n_broken += int((~usable).sum())
        return usable

    def raise_if_broken(self) -> None:
        """Raise InputError when any trace was not finite."""
        if self.n_broken:
            raise InputError(
                f"{self.n_broken} of {self.n_traces} traces hold NaN or infinite activations, first in layer "
                f"{self.first_layer + min(self.layers)}; record them again in float32 or bfloat16, or leave those traces out"
            )
