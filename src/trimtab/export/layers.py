"""A steering layer by layer, as the columns of its down projections."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trimtab.export.checkpoint import Checkpoint
from trimtab.steering import Steering


@dataclass(frozen=True, slots=True, eq=False)
class LayerEdit:
    """What a steering at full strength does in one layer.

    Args:
        index: int64 ``[neuron]``.
        gain, shift: float32 ``[neuron]``, strength times gain and strength times shift.
    """

    layer: int
    index: NDArray[np.int64]
    gain: NDArray[np.float32]
    shift: NDArray[np.float32]


def layer_edits(steering: Steering) -> Iterator[LayerEdit]:
    """The steered layers in order; the strength is multiplied in float32, as the hooks do."""
    strength = np.float32(steering.strength)
    for layer in np.unique(steering.layer).tolist():
        rows = np.flatnonzero(steering.layer == layer)
        yield LayerEdit(layer, steering.index[rows], strength * steering.gain[rows], strength * steering.shift[rows])


def output_shift(edit: LayerEdit, checkpoint: Checkpoint) -> NDArray[np.float32]:
    """``W[:, S] @ shift``, what the shifts add to the FFN's output: float32 ``[d_model]``, summed in float64."""
    columns = checkpoint.columns(edit.layer, edit.index).astype(np.float64)
    return (columns @ edit.shift.astype(np.float64)).astype(np.float32)
