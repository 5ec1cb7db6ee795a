"""How much of a steering is left out, as far as the weights alone tell."""

from collections.abc import Collection

import numpy as np

from trimtab.export.checkpoint import Checkpoint
from trimtab.export.layers import layer_edits, output_shift
from trimtab.export.parts import Part
from trimtab.steering import Steering


def shares_of(steering: Steering, drop: Collection[Part], checkpoint: Checkpoint) -> dict[str, object]:
    """What dropping these parts leaves out, by names for the card.

    ``layer-0`` is the norm of ``W[:, S] @ shift`` in layer 0 over the sum of that norm over all layers; ``shift`` and ``gain``
    are counted in neurons, since what a gain does depends on the activations.
    """
    shares: dict[str, object] = {}
    if "layer-0" in drop and steering.shift.any():
        norms = {edit.layer: float(np.linalg.norm(output_shift(edit, checkpoint))) for edit in layer_edits(steering)}
        shares["share of the shifts dropped with layer 0"] = norms.get(0, 0.0) / sum(norms.values())
    if "gain" in drop:
        shares["share of neurons that lose a gain"] = float((steering.gain != 0).mean())
    if "shift" in drop:
        shares["share of neurons that lose a shift"] = float((steering.shift != 0).mean())
    return shares
