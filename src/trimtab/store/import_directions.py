"""Directions from other tools: control vectors of repeng and llama.cpp, AISteer360's files, steering-vectors in memory.

All of them count a direction by the decoder block after which it is added, from 0, as :class:`trimtab.directions.Directions`:

- GGUF control vectors. ``direction.l`` is added to the output of block l, by repeng (whose layer l is ``hidden_states[l + 1]``)
  and by llama.cpp alike. llama.cpp takes no ``direction.0``, and repeng trains none unless it is asked to; one is read here.
- AISteer360's ``.svec``: JSON with ``model_type`` and ``directions``, a matrix ``[K, d]`` by layer. Its contrastive methods have
  K = 1 and add the vector after one of the layers; several rows are positions, planes or heads, which are something else.
- ``steering_vectors.SteeringVector``: ``layer_activations`` by layer, of the layer type ``decoder_block``.
"""

import hashlib
import os
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from trimtab.directions import Directions, layers_in_words
from trimtab.errors import InputError
from trimtab.neurons import ModelIdentity
from trimtab.store.atomic import one_line, parse_json
from trimtab.store.remote import check_regular

if TYPE_CHECKING:
    from torch import Tensor

    from trimtab.steering import PositionScope

CONTROL_VECTOR, SVEC = ".gguf", ".svec"
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin")
SCOPES: "Mapping[str, PositionScope]" = {CONTROL_VECTOR: "all", SVEC: "generated"}
"""Where the tools themselves add: repeng and llama.cpp at every token, AISteer360 after the prompt."""
MOST_BYTES = 256 * 2**20
"""No file of directions needs more; a larger one is refused before it is read."""


def holds_directions(path: str | os.PathLike[str]) -> bool:
    """Whether a name is that of a file of directions, or of a pickle, which is refused when it is read."""
    return Path(path).suffix in (CONTROL_VECTOR, SVEC, *PICKLES)


def read_directions(path: str | os.PathLike[str], model: ModelIdentity, layers: Sequence[int] = ()) -> Directions:
    """Read another tool's directions.

    Args:
        path: a GGUF control vector or an AISteer360 ``.svec``.
        model: that they were made for, as :func:`trimtab.open_model` identifies it; its sizes are checked, its weights cannot be.
        layers: only these; a ``.svec`` that holds several needs them.

    Raises:
        InputError: a file that cannot be used, a pickle, or directions that do not fit the model.
    """
    path = Path(path)
    if path.suffix in PICKLES:
        raise InputError(
            f"{path} is a pickle, which runs code when it is opened, so trimtab does not; load it with the tool that wrote it, "
            "and pass the object: trimtab.store.from_steering_vector(vector, model)"
        )
    if path.suffix not in (CONTROL_VECTOR, SVEC):
        raise InputError(f"cannot tell the format of {path} from its ending; accepted: {CONTROL_VECTOR}, {SVEC}")
    content = _content(path)
    hint, vectors = _control_vector(path) if path.suffix == CONTROL_VECTOR else _svec(path, content)
    told = {"file": path.name, "sha256": hashlib.sha256(content).hexdigest(), "model_hint": hint}
    found = _directions(vectors, f"{path.name}, imported", model, {"imported": told}, str(path))
    if path.suffix == SVEC and len(found) > 1 and not layers:
        raise InputError(
            f"{path} holds directions of {layers_in_words(found.layer)}, and AISteer360 adds one of them; choose it: --layer N"
        )
    return found.at(*layers) if layers else found


class LayerActivations(Protocol):
    """What is read of a ``steering_vectors.SteeringVector``."""

    layer_activations: "Mapping[int, Tensor]"
    layer_type: str


def from_steering_vector(vector: LayerActivations, model: ModelIdentity) -> Directions:
    """The directions of a ``steering_vectors.SteeringVector``, which that package has loaded or trained.

    Its multiplier is the strength, and without ``min_token_index`` its scope is ``all``.

    Raises:
        InputError: another layer type than ``decoder_block``, or directions that do not fit the model.

    Example:
        >>> directions = from_steering_vector(vector, model.identity)  # doctest: +SKIP
        >>> study.evaluate(directions.steering(strength=1.0, scope="all"))  # doctest: +SKIP
    """
    if vector.layer_type != "decoder_block":
        raise InputError(
            f"this steering vector is of the layer type {vector.layer_type!r}; a direction is added to the output of a decoder "
            "block, layer_type 'decoder_block'"
        )
    vectors = {layer: tensor.detach().float().cpu().numpy().squeeze() for layer, tensor in vector.layer_activations.items()}
    return _directions(vectors, "steering-vectors, imported", model, {}, "the steering vector")


def _directions(
    vectors: Mapping[int, NDArray[np.float32]], criterion: str, model: ModelIdentity, facts: dict[str, object], where: str
) -> Directions:
    if not vectors:
        raise InputError(f"{where} holds no direction")
    odd = {layer: vector.shape for layer, vector in vectors.items() if vector.shape != (model.d_model,)}
    if odd:
        layer, shape = next(iter(odd.items()))
        raise InputError(
            f"{where}: the direction of layer {layer} has the shape {list(shape)}, and the residual stream of {model.name} is "
            f"{model.d_model} wide; give directions of this model"
        )
    order = sorted(vectors)
    try:
        return Directions(np.array(order, np.int64), np.stack([vectors[layer] for layer in order]), criterion, model, facts)
    except InputError as cause:
        raise InputError(f"{where}: {cause}") from cause


def _content(path: Path) -> bytes:
    try:
        check_regular(path)
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise InputError(f"{path} has {size:,} bytes, and a file of directions at most {MOST_BYTES:,}; give the vector alone")
        return path.read_bytes()
    except OSError as cause:
        raise InputError(f"cannot read {path}: {cause}; give the path of a control vector") from cause


_DAMAGED = (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError, struct.error)
"""What gguf raises for a file that is truncated, empty or something else."""
_NAME = re.compile(r"direction\.(0|[1-9][0-9]{0,4})")


def _control_vector(path: Path) -> tuple[str, dict[int, NDArray[np.float32]]]:
    """The model hint, empty where there is none, and the vector of each layer."""
    try:
        from gguf import GGUFReader
    except ModuleNotFoundError as cause:
        if cause.name != "gguf":
            raise
        raise InputError(f"reading {path} needs gguf, which is not installed; run: pip install 'trimtab[gguf]'") from cause
    try:
        reader = GGUFReader(path)
        said = {name: str(field.contents()) for name, field in reader.fields.items() if name in (_ARCHITECTURE, _HINT)}
        tensors = [(str(tensor.name), tensor.tensor_type.name, np.array(tensor.data)) for tensor in reader.tensors]
    except _DAMAGED as cause:
        raise InputError(f"{path} cannot be read as GGUF ({one_line(cause)}); write it again") from cause
    if said.get(_ARCHITECTURE) != "controlvector":
        raise InputError(
            f"{path} is a GGUF file of the architecture {said.get(_ARCHITECTURE)!r}, not 'controlvector'; give a control vector "
            "as repeng's export_gguf or llama-cvector-generator writes it"
        )
    vectors = {}
    for name, kind, data in tensors:
        layer = _NAME.fullmatch(name)
        if layer is None or kind not in ("F32", "F16"):
            raise InputError(
                f"{path} holds the tensor {name!r:.60} of type {kind}; a control vector has direction.N of F32 or F16"
            )
        vectors[int(layer[1])] = data.astype(np.float32)
    return said.get(_HINT, ""), vectors


_ARCHITECTURE, _HINT = "general.architecture", "controlvector.model_hint"


def _svec(path: Path, content: bytes) -> tuple[str, dict[int, NDArray[np.float32]]]:
    """The model type, and the vector of each layer."""
    form = 'an AISteer360 .svec is JSON {"model_type": ..., "directions": {"12": [[...]]}}'
    try:
        told = parse_json(content)
    except (ValueError, UnicodeDecodeError) as cause:
        raise InputError(f"{path} is not JSON ({one_line(cause)}); {form}") from cause
    directions = told.get("directions") if isinstance(told, dict) else None
    if not isinstance(told, dict) or not isinstance(directions, dict) or not isinstance(told.get("model_type"), str):
        raise InputError(f"{path} lacks model_type or directions; {form}")
    if told.get("num_heads") is not None:
        raise InputError(f"{path} holds directions of attention heads, and a direction is of the whole residual stream")
    vectors = {}
    for name, rows in directions.items():
        if not re.fullmatch(r"0|[1-9][0-9]{0,4}", name):
            raise InputError(f"{path} names the layer {name!r:.40}; {form}")
        try:
            matrix = np.atleast_2d(np.array(rows, np.float64))
        except (ValueError, TypeError, OverflowError) as cause:
            raise InputError(f"{path}: the direction of layer {name} is no matrix of numbers; {form}") from cause
        if matrix.ndim != 2 or len(matrix) != 1:
            raise InputError(
                f"{path}: the direction of layer {name} has the shape {list(matrix.shape)}; a direction is one vector a layer, "
                "and several are positions, planes or heads"
            )
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which no direction may be
            vectors[int(name)] = matrix[0].astype(np.float32)
    return str(told["model_type"]), vectors
