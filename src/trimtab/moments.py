"""Mergeable moments of activations: all that any criterion reads."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError

TokenScope = Literal["all", "response", "last-prompt"]
MOMENTS = ("sum", "magnitude", "square")


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Sums over the tokens of each trace.

    ``sum = sum_t a_tj``, ``magnitude = sum_t |a_tj|``, ``square = sum_t a_tj^2``, each float32 ``[trace, layer, d_ff]`` or None
    when it was not recorded; ``count`` int64 ``[trace]`` is the number of tokens.
    """

    count: NDArray[np.int64]
    sum: NDArray[np.float32] | None = None
    magnitude: NDArray[np.float32] | None = None
    square: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        for name in MOMENTS:
            array = getattr(self, name)
            if array is not None and len(array) != len(self.count):
                raise InputError(f"moments of {len(array)} traces with counts of {len(self.count)}")

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
        )

    def mean(self) -> NDArray[np.float32]:
        """``m1 = sum / count`` per trace."""
        return self._per_token(self.sum, "sum")

    def mean_magnitude(self) -> NDArray[np.float32]:
        """``mabs = magnitude / count`` per trace."""
        return self._per_token(self.magnitude, "magnitude")

    def rms(self) -> NDArray[np.float32]:
        """``sqrt(square / count)`` per trace."""
        return np.sqrt(self._per_token(self.square, "square"))

    def _per_token(self, array: NDArray[np.float32] | None, name: str) -> NDArray[np.float32]:
        if array is None:
            raise InputError(f"moment {name!r} was not recorded; record again with it in `moments`")
        if (self.count == 0).any():
            raise InputError(f"{int((self.count == 0).sum())} traces have no token in this scope and so no mean")
        return array / self.count[:, None, None].astype(np.float32)
