"""The top share of neurons by a value."""

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError


def top_share(
    eligible: NDArray[np.bool_], value: NDArray[np.float64], share: float, per_layer: bool = False
) -> NDArray[np.bool_]:
    """Mark the ``max(1, round(share * n))`` neurons of highest value among the eligible, ties by address.

    Args:
        eligible, value: ``[layer, d_ff]``.
        share: in (0, 1], of all n neurons, whether eligible or not; of each layer's with `per_layer`.
        per_layer: take the share from each layer.

    Raises:
        InputError: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise InputError(f"the top share of neurons is {share}; give one in (0, 1], such as 0.1 for 10 %")
    if per_layer:
        return np.stack([top_share(eligible[i : i + 1], value[i : i + 1], share)[0] for i in range(len(value))])
    address = np.flatnonzero(eligible)
    best = np.argsort(-value.ravel()[address], kind="stable")[: max(1, round(share * value.size))]
    marked = np.zeros(value.size, np.bool_)
    marked[address[best]] = True
    return marked.reshape(value.shape)
