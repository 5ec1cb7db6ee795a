"""Random controls of a found set: as many neurons or directions, in the same layers, as hard, in no direction that was found."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trimtab.errors import InputError
from trimtab.steering import Steering


def random_like(steering: Steering, seed: int) -> Steering:
    """Draw other neurons of the same layers and give them the found map, permuted within each layer, with random signs.

    Neuron i of the control lies in the layer of neuron i of the found set, and in its expert: how often tokens are routed there
    decides how often it acts. A layer (or expert) with fewer than ``count`` other neurons gives all of those and fills up with
    found ones. Strength, scope and gate stay. The numbers of a direction are permuted too, with random signs: as long, through
    other coordinates.

    One random set is no control: draw several seeds, and match norms with :func:`norm_matched`.
    """
    rng = np.random.default_rng(seed)
    index = np.empty_like(steering.index)
    source = np.empty_like(steering.index)
    peers = [steering.model.peers(*address) for address in zip(steering.layer.tolist(), steering.index.tolist(), strict=True)]
    place = steering.layer * steering.model.d_ff + np.array([first for first, _ in peers], np.int64)
    for one in np.unique(place):
        ranks = np.flatnonzero(place == one)
        found = steering.index[ranks]
        others = rng.permutation(np.setdiff1d(np.arange(*peers[ranks[0]]), found))
        drawn = np.concatenate([others, rng.permutation(found)])[: len(ranks)]
        index[ranks] = rng.permutation(drawn)
        source[ranks] = rng.permutation(ranks)
    sign = rng.choice(np.array([-1, 1], np.float32), len(index))
    signs = rng.choice(np.array([-1, 1], np.float32), steering.direction.shape)
    return replace(
        steering,
        index=index,
        gain=sign * steering.gain[source],
        shift=sign * steering.shift[source],
        direction=signs * rng.permuted(steering.direction, axis=1),
        facts={"criterion": "random", "control_of": steering.facts.get("criterion"), "seed": seed},
    )


def norm_matched(steering: Steering, reference: Steering, down: Mapping[int, NDArray[np.float32]]) -> Steering:
    """Scale the shifts of each layer until they move the residual stream as far as the reference's do.

    Per layer with neurons S: ``norm(W[:, S] @ shift)`` becomes the reference's at unit strength; give both the same strength.
    Gains stay as they were drawn: how far they move the stream depends on the activations. A direction becomes one of the
    reference's norm that is as likely to point anywhere as anywhere else, drawn by the seed of the control.

    Args:
        steering: the control.
        reference: the steering to match, in the same layers.
        down: per steered layer the down projection's weight, float32 ``[d_model, d_ff]``.

    Raises:
        InputError: the layers differ, a weight is missing or misshaped, or the control moves nothing in a layer where the
            reference does.
    """
    layers = np.unique(steering.layer)
    if not np.array_equal(layers, np.unique(reference.layer)):
        raise InputError(
            f"layers differ: {layers.tolist()} and {np.unique(reference.layer).tolist()}; use random_like(reference)"
        )
    shift = steering.shift.copy()
    for layer in layers.tolist():
        own, wanted = (_push(side, layer, down) for side in (steering, reference))
        if own == 0 and wanted > 0:
            raise InputError(
                f"the shifts of layer {layer} move nothing, so no scale gives them the norm {wanted:.3g}; draw another seed"
            )
        shift[steering.layer == layer] *= np.float32(wanted / own if own else 0)
    direction = _isotropic(reference.direction, int(str(steering.facts.get("seed", 0))))
    return replace(steering, shift=shift, direction=direction, facts={**steering.facts, "norm_matched": True})


def _isotropic(direction: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Vectors of the same norms that are uniform on the sphere, float32 ``[direction, d_model]``."""
    drawn = np.random.default_rng([seed, 1]).normal(size=direction.shape)
    norms = np.linalg.norm(direction.astype(np.float64), axis=1, keepdims=True)
    return (norms * drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def _push(steering: Steering, layer: int, down: Mapping[int, NDArray[np.float32]]) -> float:
    """``norm(W[:, S] @ shift)`` of one layer in float64."""
    model = steering.model
    if layer not in down or down[layer].shape != (model.d_model, model.d_ff):
        given = f"shape {list(down[layer].shape)}" if layer in down else "none"
        raise InputError(f"layer {layer} needs a down projection of shape {[model.d_model, model.d_ff]}, got {given}")
    here = steering.layer == layer
    columns = down[layer][:, steering.index[here]].astype(np.float64)
    return float(np.linalg.norm(columns @ steering.shift[here].astype(np.float64)))
