"""Neuron-level Wanda (arXiv 2306.11695): how much a neuron adds to the residual stream in correct reasoning."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trimtab.ranking.contrast import ClassMoments, Statistic
from trimtab.ranking.criterion import Ranking, needed, sort_neurons

NAME = "wanda"
NEEDS: frozenset[Statistic] = frozenset(("square",))


def score(moments: ClassMoments, /) -> Ranking:
    """Order by ``sqrt(sum a_j^2) * norm(W[:, j])``: over all tokens of all correct traces, and of the down projection's column j.

    Wanda scores a weight by ``|W_ij| * norm(a_j)``; over a column that is the product of norms. It reads correct traces alone:
    it asks what matters for reasoning right, not what tells right from wrong. Neurons that add nothing are never selected.

    Raises:
        InputError: squares were not recorded, or ``column_norm`` was not filled.
    """
    norm, columns = needed(moments.correct_norm, "square", NAME), needed(moments.column_norm, "column_norm", NAME)
    product = norm * columns
    return sort_neurons(moments.comparable & (product > 0), product)


def column_norms(down: Mapping[int, NDArray[np.float32]]) -> NDArray[np.float64]:
    """L2 norm of each neuron's column, float64 ``[layer, d_ff]``.

    Args:
        down: of every layer the down projection's weight, float32 ``[d_model, d_ff]``, as
            :func:`trimtab.model.weights.down_weights` gives it.
    """
    return np.stack([np.linalg.norm(down[layer].astype(np.float64), axis=0) for layer in range(len(down))])
