"""Lists of H-Neurons: the JSON of the package hprobes, and the weights of the classifier that the paper's scripts train."""

import io
import json
from pathlib import Path

import numpy as np

from trimtab.errors import InputError
from trimtab.neurons import NEURON_DEFINITION, ModelIdentity, NeuronList
from trimtab.store.atomic import unique_keys
from trimtab.store.list_file import Address, ListFile

_PLACE = "config.h_neurons"


def read_hprobes(path: Path, model: ModelIdentity) -> NeuronList:
    """Read the H-Neurons of a probe that ``hprobes`` saved: ``[[layer, index], ...]`` in ``config.h_neurons`` of its JSON.

    They are the neurons of positive weight in its classifier, in no order, without a number. ``config.intermediate_dim`` and
    ``config.layers`` have to agree with the model; the rest of the file is not read.

    Raises:
        InputError: no such JSON, layers of another width or number, a neuron that is no pair of whole numbers, outside the model
            or listed twice, each with its place.
    """
    file = ListFile.read(path)
    file.refuse_experts(model)
    try:
        content = json.loads(file.text(), object_pairs_hook=unique_keys)
        config = content["config"]
        rows, width, layers = config["h_neurons"], config["intermediate_dim"], config["layers"]
        deepest = max(layers)
    except (ValueError, RecursionError, KeyError, TypeError) as cause:
        raise InputError(
            f"{path} is no file of hprobes: it needs JSON with config.h_neurons, config.intermediate_dim and config.layers "
            f"({type(cause).__name__}: {str(cause)[:80]}); save the probe again with hprobes 0.11 or newer"
        ) from cause
    if width != model.d_ff or not isinstance(deepest, int) or deepest >= model.n_layers:
        raise InputError(
            f"{path} was made for layers of {width} neurons, the last one number {deepest}, and {model.name} has "
            f"{model.n_layers} layers of {model.d_ff}; give the model that the list was made for"
        )
    if not isinstance(rows, list):
        raise file.refuse(_PLACE, f"expected a list of [layer, index], got a {type(rows).__name__}")
    addresses = [_address(file, number, row) for number, row in enumerate(rows)]
    layer, index = file.columns(addresses, model)
    facts = file.facts("hprobes", NEURON_DEFINITION, neurons=len(addresses), selected="positive weights of an L1 classifier")
    return NeuronList(layer, index, "imported-hprobes", model, None, facts)


def _address(file: ListFile, number: int, row: object) -> Address:
    where = f"{_PLACE}[{number}]"
    if not isinstance(row, list) or len(row) != 2 or any(type(value) is not int for value in row):
        raise file.refuse(where, f"{str(row)[:50]} is no neuron; accepted: [layer, index], whole numbers")
    return Address(where, *row)


def read_classifier(path: Path, model: ModelIdentity) -> NeuronList:
    """Read the weights of H-Neurons' classifier, saved with ``numpy.save('coef.npy', classifier.coef_)``.

    ``[1, layer * d_ff]`` or flat, in the order ``layer * d_ff + index`` of the paper's scripts. Neurons of positive weight are
    taken, the largest first: those predict a wrong answer. The weights are of CETT, no difference of activations, so the list
    holds addresses only. Nothing in the file is executed.

    Raises:
        InputError: no plain array of floats, another number of weights than the model has neurons, a weight that is not finite,
            or none that is positive.
    """
    file = ListFile.read(path)
    file.refuse_experts(model)
    try:
        weights = np.load(io.BytesIO(file.content), allow_pickle=False)
    except (ValueError, OSError, EOFError) as cause:
        raise InputError(f"{path} is no plain array of numpy.save ({cause}); save the classifier's coef_ alone") from cause
    if not isinstance(weights, np.ndarray) or weights.dtype.kind != "f" or weights.shape[-1:] != (weights.size,):
        raise InputError(f"{path} holds no row of floats; save the classifier's coef_ alone: numpy.save('coef.npy', model.coef_)")
    flat = weights.ravel().astype(np.float64)
    if model.widths is not None or len(flat) != model.n_neurons:
        raise InputError(
            f"{path} has {len(flat)} weights, and {model.name} has {model.n_layers} layers of {model.width_text} neurons; give "
            "the model that the classifier was trained for"
        )
    if not np.isfinite(flat).all():
        raise file.refuse(f"weight {np.flatnonzero(~np.isfinite(flat))[0]}", "is not finite")
    order = np.argsort(-flat, kind="stable")[: int((flat > 0).sum())]
    addresses = [Address(f"weight {place}", *divmod(place, model.d_ff)) for place in order.tolist()]
    layer, index = file.columns(addresses, model)
    facts = file.facts("h-neurons", NEURON_DEFINITION, neurons=len(addresses), selected="positive weights of an L1 classifier")
    return NeuronList(layer, index, "imported-h-neurons", model, None, facts)
