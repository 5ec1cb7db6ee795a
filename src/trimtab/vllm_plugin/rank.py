"""The share of each layer that a tensor-parallel rank holds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Rank:
    """One of several workers that share each layer: it holds neurons ``[index * width, (index + 1) * width)``."""

    index: int
    count: int
    d_ff: int

    @property
    def width(self) -> int:
        """Neurons of a layer that it holds."""
        return self.d_ff // self.count

    def own(
        self, layer: int, layers: NDArray[np.int64], neurons: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Those of a layer that this rank holds: their positions among all, and their columns here."""
        place = np.flatnonzero((layers == layer) & (neurons // self.width == self.index))
        return place, neurons[place] - self.index * self.width
